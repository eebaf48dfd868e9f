"""``nightshift doctor``: whether an installation has all that it needs, seen from this machine.

The servers are those of the environment, else those of the stack of the state folder. Where neither
names them, only the API is checked.
"""

from __future__ import annotations

import functools
import json as json_format
import os
import time
from dataclasses import asdict
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError

from api.cli import connection, console
from api.cli.arguments import Json
from api.cli.connection import Api
from api.cli.failures import FAILED, Failure
from api.cli.up import Home
from jobs import distribution
from jobs.doctor import check_results, judgement, machine
from jobs.doctor.check_results import CheckResult, CheckStatus
from jobs.doctor.facts import ApiFacts
from jobs.settings import Settings

SECONDS, LEAST_SECONDS, MOST_SECONDS = 10.0, 0.1, 600
NAMED = (
    *("NIGHTSHIFT_DATABASE_URL", "DATABASE_URL", "NIGHTSHIFT_REDIS_URL", "REDIS_URL"),
    "NIGHTSHIFT_OBJECT_STORE_URL",
)
"""Variables that name the servers of an installation."""
UNKNOWN_VERSION = "0"
"""As an API that is not installed describes itself."""
OF_STACK = ("database_url", "redis_url", "object_store_url")


def _limit(given: str | float) -> float:
    """Seconds of ``--seconds``; a number is the default."""
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not LEAST_SECONDS <= seconds <= MOST_SECONDS:  # not even infinity and NaN
        raise ValueError(
            f"must be {LEAST_SECONDS} to {MOST_SECONDS} seconds, not {str(given)[:60]!r}"
        )
    return seconds


def doctor(
    *,
    home: Home = None,
    seconds: Annotated[
        float,
        typer.Option(metavar="SECONDS", help="How long each check may take.", parser=_limit),
    ] = SECONDS,
    json: Json = False,
    api: Api = None,
) -> int:
    """Check all that an installation needs, and say what to do; exit code 1 on an error."""
    found = _examine(home or connection.home(), api=api, seconds=seconds)
    if json:
        console.as_json([asdict(each) for each in found])
    else:
        _show(found)
    return FAILED if any(each.status is CheckStatus.ERROR for each in found) else 0


def _examine(home: Path, *, api: str | None, seconds: float) -> list[CheckResult]:
    stack = _stack(home)
    try:
        settings = Settings(**_of_stack(stack, home) if stack else {})
    except (ValidationError, SettingsError) as failure:
        return [_unreadable(failure)]
    from jobs.doctor import examination  # noqa: PLC0415 - other commands need no SQL

    address, unknown = _address(api)
    checks = examination.checks(settings, home=home if stack else None, seconds=seconds)
    if stack is None and not any(name in os.environ for name in NAMED):
        checks = {"settings": _of_client}
    if address is not None:
        checks["api"] = functools.partial(_api, address, seconds=seconds)
    found = examination.run(checks, settings=settings, seconds=seconds, others=_keys(address))
    return [*found, *unknown]


def _of_stack(stack: dict[str, Any], home: Path) -> dict[str, Any]:
    """The settings that the processes of the stack have, as far as a check needs them."""
    folders = {"artefact_cache": str(home / "artefacts"), "host_folder": str(home / "work")}
    return {name: stack[name] for name in OF_STACK} | folders


def _keys(address: connection.Address | None) -> list[str]:
    return [address.key] if address and address.key else []


def _stack(home: Path) -> dict[str, Any] | None:
    """The servers of the state folder's stack, unless the environment names others."""
    if any(name in os.environ for name in NAMED):
        return None
    try:
        found: Any = json_format.loads((home / "stack.json").read_text())
    except (OSError, ValueError):
        return None
    whole = isinstance(found, dict) and all(isinstance(found.get(name), str) for name in OF_STACK)
    return found if whole else None


def _of_client() -> list[CheckResult]:
    sentence = "neither variables nor a stack name the servers: only the API is checked"
    advice = "run it where the processes of the installation run, with their variables"
    return [
        *(each for each in machine.variables(os.environ) if each.status is not CheckStatus.OK),
        check_results.warning("settings", sentence, advice),
    ]


def _unreadable(failure: ValidationError | SettingsError) -> CheckResult:
    """Names the settings alone: what was given may be a secret."""
    if isinstance(failure, ValidationError):
        names = sorted({f"NIGHTSHIFT_{str(each['loc'][0]).upper()}" for each in failure.errors()})
        sentence = f"{', '.join(names)} cannot be read"
    else:
        sentence = str(failure)
    return check_results.error("settings", sentence, "see docs/settings.md for what each must be")


def _address(api: str | None) -> tuple[connection.Address | None, list[CheckResult]]:
    """Where the API is, or why that is not known."""
    try:
        return connection.address(api), []
    except Failure as failure:
        advice = "name it with --api or NIGHTSHIFT_API_URL"
        return None, [check_results.warning("api", failure.message, advice)]


def _api(address: connection.Address, *, seconds: float) -> list[CheckResult]:
    key = os.environ.get(connection.KEY) or address.key
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        with httpx.Client(base_url=address.url, timeout=seconds, headers=headers) as http:
            before = time.time()
            health = http.get("/healthz")
            here = (before + time.time()) / 2
            return list(judgement.api(_facts(http, health, url=address.url, here=here)))
    except (httpx.HTTPError, ValueError, KeyError) as failure:
        advice = "start it with `nightshift up` or `python -m api.server`, or correct its address"
        return [check_results.error("api", f"{address.url} does not answer: {failure}", advice)]


def _facts(http: httpx.Client, health: httpx.Response, *, url: str, here: float) -> ApiFacts:
    health.raise_for_status()
    key_valid = None
    if "authorization" in http.headers:
        listed = http.get("/v1/jobs", params={"limit": 1})
        key_valid = listed.status_code != httpx.codes.UNAUTHORIZED
    date = health.headers.get("date")
    return ApiFacts(
        url=url,
        version=_version(http.get("/openapi.json").json()),
        own_version=distribution.version() or UNKNOWN_VERSION,
        ready=http.get("/readyz").is_success,
        key_valid=key_valid,
        skew_seconds=parsedate_to_datetime(date).timestamp() - here if date else None,
    )


def _version(description: dict[str, Any]) -> str:
    return str(description["info"]["version"])


def _show(found: list[CheckResult]) -> None:
    width = max(len(each.check) for each in found)
    for each in found:
        console.line(f"{each.status.ljust(8)} {each.check.ljust(width)}  {each.sentence}")
        if each.advice:
            console.line(f"{' ' * (width + 9)}  {each.advice}")
    counts = {status: sum(each.status is status for each in found) for status in CheckStatus}
    console.note(", ".join(f"{count} {status}" for status, count in counts.items() if count))
