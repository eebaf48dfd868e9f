"""``nightshift jobs why``: what stands in a job's way, and where its time went."""

from __future__ import annotations

from typing import Any

from api.cli import connection, console
from api.cli.arguments import JobId, Json
from api.cli.connection import Api
from api.client import FINAL

LEAST_SHARE = 0.1
"""Parts of the time that are smaller get no advice."""


def why(job_id: JobId, *, json: Json = False, api: Api = None) -> None:
    """Why a job does not move, or how it ended; where its time went; and what to do next."""
    with connection.connect(api) as client:
        found = client.why(job_id)
    if json:
        console.as_json(found)
        return
    console.line(f"{found['job']} is {found['state']}{_moves(found)}")
    for finding in found["findings"]:
        console.line(f"  {finding['sentence']}")
        console.line(f"    {finding['advice']}: {finding['command']}")
    if found["time"]:
        console.line(f"time since it was accepted: {console.duration(found['seconds'])}")
    for part in found["time"]:
        _show_part(part, of=found["seconds"])


def _moves(found: dict[str, Any]) -> str:
    if found["moves"]:
        return " and moves"
    return "" if found["state"] in FINAL else " and does not move"


def _show_part(part: dict[str, Any], *, of: float) -> None:
    share = console.share(part["seconds"], of=of)
    length = console.duration(part["seconds"])
    console.line(f"  {length.rjust(8)}  {share.rjust(6)}  {part['sentence']}")
    if part["seconds"] >= LEAST_SHARE * of:
        console.line(f"{' ' * 20}{part['advice']}: {part['command']}")
