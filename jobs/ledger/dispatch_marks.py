"""Marking work as sent: the mark is committed first, the message follows it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.ledger import transitions
from jobs.lookups import predicates
from jobs.states import JobState
from jobs.tables import Chunk, Job


@dataclass(frozen=True)
class Sent:
    """A chunk to send a message about, with words for people who watch the queue."""

    chunk_id: int
    job_id: str
    first_row: int
    rows: int

    @property
    def words(self) -> str:
        """What Flower shows."""
        last = self.first_row + self.rows - 1
        return f"rows {self.first_row:,} to {last:,} of {self.job_id}"


def mark_chunks(
    session: Session, job_id: str, *, count: int, resend_before: datetime | None
) -> list[Sent]:
    """Take the job's next chunks in row order and mark them as sent.

    The chunks are chosen once. A plain subquery could be evaluated again for every chunk that it is
    joined to, skip those just marked, and so mark all of them.
    """
    chosen = (
        sa.select(Chunk.id)
        .where(Chunk.job_id == job_id, predicates.chunk_dispatchable(resend_before))
        .order_by(Chunk.first_row)
        .limit(count)
        .with_for_update(skip_locked=True)
        .cte("chosen")
        .prefix_with("MATERIALIZED")
    )
    rows = session.execute(
        sa.update(Chunk)
        .where(Chunk.id == chosen.c.id)
        .values(dispatched_at=sa.func.now())
        .returning(Chunk.id, Chunk.job_id, Chunk.first_row, Chunk.rows)
    )
    return sorted((Sent(*row) for row in rows), key=lambda sent: sent.first_row)


def mark_step(session: Session, job_id: str) -> None:
    """Mark a message for the job's next step as sent."""
    session.execute(sa.update(Job).where(Job.id == job_id).values(step_dispatched_at=sa.func.now()))


def begin_finalizing(session: Session, job_id: str) -> bool:
    """Every chunk is done: let a planner write the job's outputs."""
    return transitions.move(
        session, job_id, JobState.FINALIZING, only_from=(JobState.RUNNING,), step_dispatched_at=None
    )
