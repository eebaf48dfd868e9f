"""Marking work as sent: the mark is committed first, the message follows it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningUpdate

from jobs import message_words
from jobs.ledger import transitions
from jobs.lookups import predicates, subjects
from jobs.message_words import Subject
from jobs.states import ChunkState, JobState, JobStep
from jobs.tables import Chunk, Job


@dataclass(frozen=True)
class Sent:
    """A chunk to send a message about, with words for people who watch the queue."""

    chunk_id: int
    first_row: int
    rows: int
    number: int | None  # null: planned by a version that did not number them
    chunks: int | None  # of the job; null: it is being planned
    subject: Subject

    @property
    def job_id(self) -> str:
        """The chunk's job."""
        return self.subject.job_id

    @property
    def words(self) -> str:
        """What Flower shows."""
        return message_words.chunk(
            self.subject,
            first_row=self.first_row,
            rows=self.rows,
            number=self.number,
            chunks=self.chunks,
        )


def mark_chunks(
    session: Session, counts: Mapping[str, int], *, resend_before: datetime | None = None
) -> dict[str, list[Sent]]:
    """Mark the next chunks of each job as sent, up to its count; returns them in row order.

    The chunks are chosen once. A plain subquery could be evaluated again for every chunk that it is
    joined to, skip those just marked, and so mark all of them.
    """
    if not counts:
        return {}
    values = {
        "job_ids": list(counts),
        "counts": list(counts.values()),
        "resend_before": resend_before,
    }
    rows = session.execute(_mark(resend=resend_before is not None), values)
    marked: dict[str, list[Sent]] = {job_id: [] for job_id in counts}
    for sent in sorted(map(_sent, rows), key=lambda sent: sent.first_row):
        marked[sent.job_id].append(sent)
    return marked


def _sent(row: Any) -> Sent:
    return Sent(
        chunk_id=row.chunk_id,
        first_row=row.first_row,
        rows=row.rows,
        number=row.number,
        chunks=row.chunks,
        subject=subjects.of(row),
    )


@functools.cache  # to build it takes longer than to run it
def _mark(*, resend: bool) -> ReturningUpdate[*tuple[Any, ...]]:
    before = sa.bindparam("resend_before", type_=sa.DateTime(timezone=True)) if resend else None
    wanted = (
        sa.func.unnest(
            sa.bindparam("job_ids", type_=ARRAY(sa.Text)),
            sa.bindparam("counts", type_=ARRAY(sa.BigInteger)),
        )
        .table_valued("job_id", "count", name="wanted")
        .render_derived()
    )
    next_chunks = (
        sa.select(Chunk.id)
        .where(Chunk.job_id == wanted.c.job_id, predicates.chunk_dispatchable(before))
        .order_by(Chunk.first_row)
        .limit(wanted.c.count)
        .with_for_update(skip_locked=True)
        .correlate(wanted)
        .lateral("next_chunks")
    )
    chosen = (
        sa.select(next_chunks.c.id)
        .select_from(wanted)
        .join(next_chunks, sa.true())
        .cte("chosen")
        .prefix_with("MATERIALIZED")
    )
    return (
        sa.update(Chunk)
        .where(Chunk.id == chosen.c.id, Job.id == Chunk.job_id)
        .values(dispatched_at=sa.func.now())
        .returning(
            *(Chunk.id.label("chunk_id"), Chunk.first_row, Chunk.rows, Chunk.number),
            sa.case((Job.planned_at.is_not(None), Job.chunks_planned)).label("chunks"),
            *subjects.columns(),
        )
        .execution_options(synchronize_session=False)
    )


def unmark_chunks(session: Session, *, pool: str) -> None:
    """Forget that messages of the pool were sent: its queue is emptied and filled again."""
    session.execute(
        sa.update(Chunk)
        .where(
            Chunk.job_id == Job.id,
            Job.pool == pool,
            Chunk.state == ChunkState.PENDING,
            Chunk.dispatched_at.is_not(None),
        )
        .values(dispatched_at=None)
    )


@dataclass(frozen=True)
class SentStep:
    """A job whose next step a message is sent about."""

    step: JobStep
    subject: Subject

    @property
    def words(self) -> str:
        """What Flower shows."""
        return message_words.step(self.step, self.subject)


def mark_step(session: Session, job_id: str, *, step: JobStep) -> SentStep:
    """Mark a message for the job's next step as sent."""
    row = session.execute(
        sa.update(Job)
        .where(Job.id == job_id)
        .values(step_dispatched_at=sa.func.now())
        .returning(*subjects.columns())
    ).one()
    return SentStep(step, subjects.of(row))


def begin_finalizing(session: Session, job_id: str) -> bool:
    """Every chunk is done: let a planner write the job's outputs."""
    return transitions.move(
        session, job_id, JobState.FINALIZING, only_from=(JobState.RUNNING,), step_dispatched_at=None
    )
