"""What happened to a job while somebody watches it, in a line; docs/api.md has the events."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from api.cli import console
from api.client import Client
from jobs.decisions.crash_policy import CrashVerdict

VERDICTS = {
    CrashVerdict.RETRY: "they are computed again",
    CrashVerdict.SPLIT: "they are computed again, in two halves",
    CrashVerdict.CONDEMN: "the row becomes an error row",
    CrashVerdict.FAIL_JOB: "the job fails",
}


def progress(
    client: Client, job_id: str, *, report: Callable[[str], None]
) -> Iterator[dict[str, Any]]:
    """The job's progress until it has ended; ``report`` gets what happens meanwhile, at once."""
    history = True  # comes before the first progress
    for event in client.watch(job_id):
        if event.type == "progress":
            history = False
            yield event.data
        elif not history and (line := words(event.type, event.data)) is not None:
            report(line)


def words(kind: str, data: Mapping[str, Any]) -> str | None:
    """The event for a person who watches; ``None``: the progress shows it as well."""
    if kind == "worker_died":
        first, last = (console.number(row) for row in data["rows"])
        follows = VERDICTS.get(data["verdict"], "")
        return f"a worker died at rows {first} to {last}; {follows}: {data['reason']}"
    if kind == "run" and data["state"] in {"lost", "preempted"}:
        how = "was lost" if data["state"] == "lost" else "was stopped"
        return f"run {data['run']} {how} at step {console.number(data['step'])}: {data['reason']}"
    return None
