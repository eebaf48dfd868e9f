"""What a person who watches a job is told at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from api.cli import job_events
from api.client import Client, JobEvent

DEATH = {
    "at": "2026-01-01T00:00:00+00:00",
    "chunk": 7,
    "rows": [2000, 3999],
    "verdict": "split",
    "reason": "its worker w went silent",
}


class Stream:
    """A client whose stream is given."""

    def __init__(self, *events: JobEvent) -> None:
        self._events = events

    def watch(self, _job_id: str) -> Iterator[JobEvent]:
        return iter(self._events)


def event(kind: str, **data: Any) -> JobEvent:
    return JobEvent(type=kind, data=data, id=None)


def watched(*events: JobEvent) -> list[str]:
    told: list[str] = []
    client = cast("Client", Stream(*events))
    states = (each["state"] for each in job_events.progress(client, "job_1", report=told.append))
    told.extend(states)
    return told


def test_a_death_is_told_when_it_happens_and_history_is_not() -> None:
    running = event("progress", state="running")
    death = event("worker_died", **DEATH)
    assert watched(death, running, death, running) == [
        "running",
        (
            "a worker died at rows 2,000 to 3,999; they are computed again, in two halves: "
            "its worker w went silent"
        ),
        "running",
    ]


def test_a_run_that_was_lost_is_told_with_its_step_and_reason() -> None:
    lost = event("run", run=2, state="lost", step=1200, reason="rank 0 on host a went silent")
    assert watched(event("progress", state="running"), lost)[1] == (
        "run 2 was lost at step 1,200: rank 0 on host a went silent"
    )


def test_what_the_progress_shows_is_not_told_again() -> None:
    assert job_events.words("run", {"run": 1, "state": "forming", "step": 0}) is None
    assert job_events.words("evaluation", {"values": {}}) is None
