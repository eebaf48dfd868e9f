"""What could be sent to workers now: the facts for fair share and the dispatch window.

The queries never scan past what is not eligible: chunks by the partial index over pending ones,
jobs by the partial index over those that have not ended.
"""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.decisions.fair_share import Candidate
from jobs.kinds import BULK
from jobs.lookups import predicates
from jobs.states import CLAIMABLE, ChunkState, JobState, JobStep
from jobs.tables import Chunk, Job, Project


def pools(session: Session) -> list[str]:
    """Pools that have a job whose chunks may be claimed."""
    return list(session.scalars(sa.select(Job.pool).where(has_claimable_chunks()).distinct()))


def has_claimable_chunks() -> sa.ColumnElement[bool]:
    """That a job's chunks may be claimed, if it has any."""
    return sa.and_(Job.state.in_(CLAIMABLE), Job.kind.in_(BULK))


def outstanding(session: Session, *, pool: str) -> int:
    """Pending chunks of the pool with a message out."""
    return (
        session.scalar(
            sa.select(sa.func.count())
            .select_from(Chunk)
            .join(Job, Job.id == Chunk.job_id)
            .where(
                Job.pool == pool,
                Job.state.in_(CLAIMABLE),
                Chunk.state == ChunkState.PENDING,
                Chunk.dispatched_at.is_not(None),
            )
        )
        or 0
    )


def candidates(
    session: Session, *, pool: str, free: int, resend_before: datetime | None
) -> list[Candidate]:
    """Jobs of the pool with at least one chunk to send; ``available`` counts up to ``free``."""
    ready = (
        sa.select(sa.literal(1).label("one"))
        .where(Chunk.job_id == Job.id, predicates.chunk_dispatchable(resend_before))
        .order_by(Chunk.first_row)  # which keeps to the index of pending chunks
        .limit(free)
        .correlate(Job)
        .subquery()
        .lateral()
    )
    available = sa.select(sa.func.count().label("available")).select_from(ready).lateral()
    query = (
        sa.select(
            *(Job.id, Job.project_id, Project.weight, Job.priority, Job.created_at),
            _in_flight().label("in_flight"),
            available.c.available,
        )
        .join(Project, Project.id == Job.project_id)
        .join(available, sa.true())
        .where(Job.pool == pool, Job.state.in_(CLAIMABLE))
    )
    return [Candidate(*row) for row in session.execute(query)]


def step_candidates(
    session: Session, *, step: JobStep, limit: int, resend_before: datetime
) -> list[Candidate]:
    """Jobs whose next step is free, each with one message to send at most."""
    leased = sa.select(Chunk.id).where(Chunk.job_id == Job.id, Chunk.state == ChunkState.LEASED)
    query = (
        sa.select(Job.id, Job.project_id, Project.weight, Job.priority, Job.created_at)
        .join(Project, Project.id == Job.project_id)
        .where(
            predicates.step_claimable(step),
            sa.or_(Job.step_dispatched_at.is_(None), Job.step_dispatched_at < resend_before),
        )
        .order_by(Job.priority.desc(), Job.created_at)
        .limit(limit)
    )
    if step is JobStep.FINALIZE:
        query = query.where(predicates.step_of_kind(step), ~leased.exists())
    return [Candidate(*row, in_flight=0, available=1) for row in session.execute(query)]


def computed(session: Session, *, limit: int) -> list[str]:
    """Running jobs that have no chunk left to do."""
    return list(session.scalars(sa.select(Job.id).where(is_computed()).limit(limit)))


def is_computed() -> sa.ColumnElement[bool]:
    """That a running job has no chunk left to do."""
    of_job = sa.select(Chunk.id).where(Chunk.job_id == Job.id)
    return sa.and_(
        Job.kind.in_(BULK),
        Job.state == JobState.RUNNING,  # each state by itself has an index, both together have none
        ~of_job.where(Chunk.state == ChunkState.PENDING).exists(),
        ~of_job.where(Chunk.state == ChunkState.LEASED).exists(),
    )


def _in_flight() -> sa.ScalarSelect[int]:
    """Chunks of the job that are leased or have a message out."""
    leased = sa.select(sa.func.count()).where(
        Chunk.job_id == Job.id, Chunk.state == ChunkState.LEASED
    )
    sent = sa.select(sa.func.count()).where(
        Chunk.job_id == Job.id,
        Chunk.state == ChunkState.PENDING,
        Chunk.dispatched_at.is_not(None),
    )
    return (leased.scalar_subquery() + sent.scalar_subquery()).self_group()  # type: ignore[return-value]
