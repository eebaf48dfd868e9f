"""Nightshift's own processes on one machine, and the settings under which they run."""

from __future__ import annotations

import sys
from dataclasses import replace

import httpx

from api.stack import logs
from api.stack.record import StackInfo
from api.stack.service import Service

FLOWER_USER = "nightshift"

HOST_GRACE_SECONDS = 60.0
"""A host that is asked to end lets its training write a checkpoint first."""

PREPARATIONS = (
    ("jobs.database", "migrate"),
    ("jobs.database", "ensure-key", "--project", "default"),
)
"""Modules that run once, in this order, when the servers answer and before all that follows."""


def compose(stack: StackInfo) -> list[Service]:
    """What stands on Postgres and Valkey: all of Nightshift's own processes, and Flower."""
    login = {"NIGHTSHIFT_FLOWER_BASIC_AUTH": f"{FLOWER_USER}:{stack.key}"}
    flower = httpx.URL(stack.flower_url).copy_with(username="", password="")
    return [
        _python(stack, "control", "workers.processes", "control"),
        _python(stack, "planner", "workers.processes", "planner"),
        _python(stack, "pool", "workers.processes", "pool"),
        replace(
            _python(stack, "host", "workers.processes", "host"), grace_seconds=HOST_GRACE_SECONDS
        ),
        replace(
            _python(stack, "api", "api.server"),
            address=stack.api_url,
            probe=lambda: is_healthy(f"{stack.api_url}/healthz"),
        ),
        replace(
            _python(stack, "flower", *_flower(flower.port), more=login),
            address=str(flower),
            probe=lambda: is_healthy(f"{flower}/healthcheck"),
        ),
    ]


def environment(stack: StackInfo) -> dict[str, str]:
    """The settings of this stack as variables; both names of a URL, lest an old one win."""
    return {
        "DATABASE_URL": stack.database_url,
        "NIGHTSHIFT_DATABASE_URL": stack.database_url,
        "REDIS_URL": stack.redis_url,
        "NIGHTSHIFT_REDIS_URL": stack.redis_url,
        "NIGHTSHIFT_OBJECT_STORE_URL": stack.object_store_url,
        "NIGHTSHIFT_API_HOST": "127.0.0.1",
        "NIGHTSHIFT_API_PORT": str(httpx.URL(stack.api_url).port),
        "NIGHTSHIFT_HOST_FOLDER": str(stack.home / "work"),
        "NIGHTSHIFT_ARTEFACT_CACHE": str(stack.home / "artefacts"),
        "NIGHTSHIFT_CALIBRATION_FOLDER": str(stack.home / "calibration"),
        "PYTHONUNBUFFERED": "1",
    }


def is_healthy(url: str) -> bool:
    """Whether a GET answers 200."""
    try:
        return httpx.get(url, timeout=2, trust_env=False).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def _flower(port: int | None) -> tuple[str, ...]:
    return ("workers.processes", "flower", f"--port={port}", "--address=127.0.0.1")


def _python(
    stack: StackInfo, name: str, *module: str, more: dict[str, str] | None = None
) -> Service:
    return Service(
        name=name,
        command=(sys.executable, "-m", *module),
        environment={**environment(stack), **(more or {})},
        log=logs.path(stack.home, name),
    )
