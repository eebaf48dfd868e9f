"""Nightshift's own processes on one machine, and the settings under which they run."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import httpx

from api.stack import logs
from api.stack.record import IDENTITY, StackInfo
from api.stack.service import Service
from jobs import secret_files, settings
from jobs.environment import COMPUTE, HUB, NETWORK, OBJECTS, PYTHON, chosen
from jobs.settings import Settings

FLOWER_USER = "nightshift"

HUB_MODELS = "hf:"
"""The models that jobs of an embedded stack may load unless its user says otherwise."""

_SETTINGS = frozenset(
    name + suffix for name in settings.variables() for suffix in ("", secret_files.SUFFIX)
)
_METRICS = ("NIGHTSHIFT_METRICS_TOKEN", "NIGHTSHIFT_METRICS_TOKEN_FILE")
_SERVERS = ("DATABASE_URL", "DATABASE_PASSWORD", "REDIS_URL", "REDIS_PASSWORD")
_SECRETS = frozenset(
    {
        *(name for name in _SETTINGS if any(server in name for server in _SERVERS)),
        *_METRICS,
    }
)

WORKER_GRACE_SECONDS = 60.0
"""A worker or planner that is asked to end finishes its chunk or step, or gives it back."""

DRAINING, DECIDING, SHOWING = range(3)
"""Stages of the end: those that work end while control decides, and the API shows it."""

PREPARATIONS = (
    ("jobs.database", "migrate"),
    ("jobs.database", "ensure-key", "--project", "default"),
)
"""Modules that run once, in this order, when the servers answer and before all that follows."""


MEASURED = ("api", "control", "planner", "pool", "host")
"""Services that answer Prometheus."""


def compose(stack: StackInfo) -> list[Service]:
    """What stands on Postgres and Valkey: all of Nightshift's own processes, and Flower."""
    login = {"NIGHTSHIFT_FLOWER_BASIC_AUTH": f"{FLOWER_USER}:{stack.flower_password}"}
    flower = httpx.URL(stack.flower_url).copy_with(username="", password="")
    works = database(stack) | broker(stack) | inherited(NETWORK, HUB, OBJECTS, COMPUTE)
    deciding = database(stack) | broker(stack)
    return [
        replace(
            _python(stack, "control", "workers.processes", "control", own=deciding),
            stop_stage=DECIDING,
        ),
        replace(
            _python(stack, "planner", "workers.processes", "planner", own=works),
            grace_seconds=WORKER_GRACE_SECONDS,
            stop_stage=DRAINING,
        ),
        replace(
            _python(stack, "pool", "workers.processes", "pool", own=works),
            grace_seconds=WORKER_GRACE_SECONDS,
            stop_stage=DRAINING,
        ),
        replace(
            _python(stack, "host", "workers.processes", "host", own=works),
            grace_seconds=Settings().host_drain.total_seconds(),
            stop_stage=DRAINING,
        ),
        replace(
            _python(
                stack, "api", "api.server", own=database(stack) | inherited(NETWORK, HUB, OBJECTS)
            ),
            address=stack.api_url,
            probe=lambda: is_healthy(f"{stack.api_url}/healthz"),
            stop_stage=SHOWING,
        ),
        replace(
            _python(stack, "flower", *_flower(stack, flower.port), own=deciding | login),
            address=str(flower),
            probe=lambda: is_healthy(f"{flower}/healthcheck"),
            stop_stage=SHOWING,
        ),
    ]


def environment(stack: StackInfo) -> dict[str, str]:
    """The settings of this stack as variables, without a secret."""
    given = {
        name: value
        for name, value in os.environ.items()
        if name in _SETTINGS and name not in _SECRETS
    }
    own = {
        IDENTITY: stack.identity,
        "NIGHTSHIFT_OBJECT_STORE_URL": stack.object_store_url,
        "NIGHTSHIFT_API_HOST": "127.0.0.1",
        "NIGHTSHIFT_API_PORT": str(httpx.URL(stack.api_url).port),
        "NIGHTSHIFT_METRICS_HOST": "127.0.0.1",
        "NIGHTSHIFT_HOST_FOLDER": str(stack.home / "work"),
        "NIGHTSHIFT_ARTEFACT_CACHE": str(stack.home / "artefacts"),
        "NIGHTSHIFT_CALIBRATION_FOLDER": str(stack.home / "calibration"),
        "NIGHTSHIFT_PRIVATE_FOLDERS": json.dumps(_private(stack)),
        "NIGHTSHIFT_ALLOWED_MODELS": json.dumps(_allowed_models(stack)),
        "NIGHTSHIFT_ALLOWED_INPUTS": json.dumps(_allowed_inputs(stack)),
        "PYTHONUNBUFFERED": "1",
    }
    replaced = {name + secret_files.SUFFIX for name in (*own, "NIGHTSHIFT_METRICS_PORT")}
    return {name: given[name] for name in given.keys() - replaced} | own


def database(stack: StackInfo) -> dict[str, str]:
    """Where Postgres is, with its password; both names, lest an old one win."""
    return {"DATABASE_URL": stack.database_url, "NIGHTSHIFT_DATABASE_URL": stack.database_url}


def broker(stack: StackInfo) -> dict[str, str]:
    """Where Valkey is, with its password."""
    return {"REDIS_URL": stack.redis_url, "NIGHTSHIFT_REDIS_URL": stack.redis_url}


def inherited(*groups: tuple[str, ...]) -> dict[str, str]:
    """The variables of these groups that the supervisor has."""
    return chosen(os.environ, *groups)


def _metrics(stack: StackInfo, name: str) -> dict[str, str]:
    """A port of its own, for all services are on one machine, and whom it answers."""
    port = stack.metrics.get(name, 0)
    return {"NIGHTSHIFT_METRICS_PORT": str(port)} | (inherited(_METRICS) if port else {})


def _private(stack: StackInfo) -> list[str]:
    """The state folder, and where the data of Postgres lie if that is elsewhere."""
    return [*Settings().private_folders, str(stack.home), *stack.folders]


def _allowed_models(stack: StackInfo) -> list[str]:
    """The setting if it is there, else the hub; and the folders that the user allows."""
    given = Settings()
    models = given.allowed_models if "allowed_models" in given.model_fields_set else [HUB_MODELS]
    return [*models, *stack.allowed]


def _allowed_inputs(stack: StackInfo) -> list[str]:
    return [*Settings().allowed_inputs, *(Path(folder).as_uri() for folder in stack.allowed)]


def is_healthy(url: str) -> bool:
    """Whether a GET answers 200."""
    try:
        return httpx.get(url, timeout=2, trust_env=False).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def _flower(stack: StackInfo, port: int | None) -> tuple[str, ...]:
    history = stack.home / "flower" / "history"
    options = (f"--port={port}", "--address=127.0.0.1", "--persistent=True", f"--db={history}")
    return ("workers.processes", "flower", *options, "--read_only=False")


def _python(stack: StackInfo, name: str, *module: str, own: dict[str, str]) -> Service:
    return Service(
        name=name,
        command=(sys.executable, "-m", *module),
        environment=inherited(PYTHON) | environment(stack) | own | _metrics(stack, name),
        log=logs.path(stack.home, name),
    )
