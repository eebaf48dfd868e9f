"""Log lines of a training job's ranks, in the order in which they came."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.lookups import clock
from jobs.tables import LogLine

LATE_COMMIT = timedelta(seconds=1)
"""Ranks write at once, and ids are given before the commit: a line is shown this long after it was
written, so that none with a smaller id comes behind the reader's back."""


@dataclass(frozen=True)
class Lines:
    """A piece of a log."""

    lines: list[LogLine]
    more: bool  # that can be had at once


def page(
    session: Session,
    job_id: str,
    *,
    limit: int,
    after: int = 0,
    rank: int | None = None,
    run: int | None = None,
) -> Lines:
    """Lines behind the id ``after``, of all ranks and runs or of one."""
    query = (
        sa.select(LogLine)
        .where(LogLine.job_id == job_id, LogLine.id > after)
        .order_by(LogLine.id)
        .limit(limit + 1)
    )
    if rank is not None:
        query = query.where(LogLine.rank == rank)
    if run is not None:
        query = query.where(LogLine.run_number == run)
    settled = _settled(list(session.scalars(query)), now=clock.now(session))
    return Lines(lines=settled[:limit], more=len(settled) > limit)


def is_over(finished_at: datetime | None, *, now: datetime) -> bool:
    """Whether nothing will be added to the log of a job that ended then."""
    return finished_at is not None and now - finished_at > 2 * LATE_COMMIT


def _settled(lines: list[LogLine], *, now: datetime) -> list[LogLine]:
    young = (place for place, line in enumerate(lines) if line.at > now - LATE_COMMIT)
    return lines[: next(young, len(lines))]
