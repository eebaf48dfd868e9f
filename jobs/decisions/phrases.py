"""Phrases of sentences about jobs: names, counts, times.

Of another project's job a phrase says nothing but that it is one (promise P9).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

MOST_NAMED = 3
"""Jobs or workers that one sentence names."""


@dataclass(frozen=True)
class OtherJob:
    """A job that has what this one waits for."""

    job_id: str
    name: str | None
    priority: int
    same_project: bool


def jobs(found: Sequence[OtherJob], *, than: int | None = None) -> str:
    """The jobs by id and name, with how their priority compares; another project's by number."""
    ours = [job for job in found if job.same_project]
    theirs = len(found) - len(ours)
    named = [_name(job, than=than) for job in ours[:MOST_NAMED]]
    if (more := len(ours) - MOST_NAMED) > 0:
        named.append(f"{more} more")
    if theirs:
        named.append("a job of another project" if theirs == 1 else f"{theirs} of other projects")
    return listed(named)


def first_own(found: Sequence[OtherJob]) -> str | None:
    """The id of the first job of the same project."""
    return next((job.job_id for job in found if job.same_project), None)


def _name(job: OtherJob, *, than: int | None) -> str:
    name = f"{job.job_id} ({job.name})" if job.name else job.job_id
    if than is None or job.priority == than:
        return name
    higher = "higher" if job.priority > than else "lower"
    return f"{name} of {higher} priority ({job.priority}, this job has {than})"


def listed(words: Iterable[str]) -> str:
    """``a, b and c``."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def clock(at: datetime) -> str:
    """The time of day, UTC."""
    return f"{at:%H:%M:%S} UTC"


def in_seconds(at: datetime | None, *, now: datetime) -> str:
    """``" in 5 s"`` before that time; empty once it has come."""
    return "" if at is None or at <= now else f" in {round((at - now).total_seconds())} s"


def chunks(count: int) -> str:
    """``1 chunk``, ``2 chunks``."""
    return counted(count, "chunk")


def counted(count: int, noun: str) -> str:
    """The number with its noun."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def all_of(count: int, noun: str) -> str:
    """``the only slot``, ``all 2 slots``."""
    return f"the only {noun}" if count == 1 else f"all {count} {noun}s"


def are(count: int) -> str:
    """The verb to that many."""
    return "is" if count == 1 else "are"


def takes(count: int) -> str:
    """The verb to that many."""
    return "takes" if count == 1 else "take"
