"""How many slots the work of a pool wants, so that every job ends by its deadline.

The formula: order the work by deadline. All work up to a deadline must fit into the time until it,
so it wants ``ceil(seconds of that work / seconds until then)`` slots; never more than it has
chunks, since a slot computes one at a time. The pool wants the largest of these numbers. Work
without a deadline should end within a time that the caller names (docs/metrics.md#demand).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

CHUNK_SECONDS = 10.0
"""Of a chunk, where none of the pool's jobs has ended one yet."""

SHORTEST = 0.1
"""Seconds: no chunk counts as shorter."""


@dataclass(frozen=True)
class JobWork:
    """What is left of a job."""

    chunks: int  # that are not done; of one that is not planned yet: 1
    chunk_seconds: float | None  # of those that are done, on average; None: none is
    deadline: datetime | None


@dataclass(frozen=True)
class SlotDemand:
    """Slots of one pool."""

    wanted: int
    for_deadlines: int  # of those, for jobs that have one
    chunks: int
    chunk_seconds: float  # of a chunk, on average over what is left


def slots(works: Iterable[JobWork], *, now: datetime, within: timedelta) -> SlotDemand:
    """The demand of one pool's jobs; those without a deadline should end ``within`` this time."""
    left = [work for work in works if work.chunks > 0]
    usual = _usual(left)
    due = [_Due(work, usual=usual, by=work.deadline or now + within) for work in left]
    seconds, chunks = sum(each.seconds for each in due), sum(work.chunks for work in left)
    return SlotDemand(
        wanted=_largest(due, now=now),
        for_deadlines=_largest([each for each in due if each.work.deadline is not None], now=now),
        chunks=chunks,
        chunk_seconds=seconds / chunks if chunks else usual,
    )


class _Due:
    def __init__(self, work: JobWork, *, usual: float, by: datetime) -> None:
        self.work, self.by = work, by
        known = usual if work.chunk_seconds is None else work.chunk_seconds
        self.seconds = work.chunks * max(known, SHORTEST)


def _largest(due: Iterable[_Due], *, now: datetime) -> int:
    most, seconds, chunks = 0, 0.0, 0
    for each in sorted(due, key=lambda each: each.by):
        seconds, chunks = seconds + each.seconds, chunks + each.work.chunks
        until = (each.by - now).total_seconds()
        most = max(most, chunks if until <= seconds / chunks else math.ceil(seconds / until))
    return most


def _usual(works: Iterable[JobWork]) -> float:
    """Seconds of a chunk of a job that has ended none: those of the pool's other jobs."""
    known = [(work.chunks, work.chunk_seconds) for work in works if work.chunk_seconds is not None]
    if not known:
        return CHUNK_SECONDS
    return sum(chunks * seconds for chunks, seconds in known) / sum(chunks for chunks, _ in known)
