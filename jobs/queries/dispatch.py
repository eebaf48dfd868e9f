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
from jobs.ledger import step_leases
from jobs.ledger.step_leases import STATES, Step
from jobs.states import CLAIMABLE, ChunkState, JobState
from jobs.tables import Chunk, Job, Project


def pools() -> sa.Select[str]:
    """Pools that have a job whose chunks may be claimed."""
    return sa.select(Job.pool).where(Job.state.in_(CLAIMABLE), Job.kind.in_(BULK)).distinct()


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
        .where(Chunk.job_id == Job.id, *eligible(resend_before))
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


def eligible(resend_before: datetime | None) -> tuple[sa.ColumnElement[bool], ...]:
    """Pending chunks that may go out: never sent, or sent so long ago that it counts as lost."""
    unsent: sa.ColumnElement[bool] = Chunk.dispatched_at.is_(None)
    if resend_before is not None:
        unsent = sa.or_(unsent, Chunk.dispatched_at < resend_before)
    return (
        Chunk.state == ChunkState.PENDING,
        unsent,
        sa.or_(Chunk.not_before.is_(None), Chunk.not_before <= sa.func.now()),
    )


def step_candidates(
    session: Session, *, step: Step, limit: int, resend_before: datetime
) -> list[Candidate]:
    """Jobs whose next step nobody holds, each with one message to send at most."""
    leased = sa.select(Chunk.id).where(Chunk.job_id == Job.id, Chunk.state == ChunkState.LEASED)
    query = (
        sa.select(Job.id, Job.project_id, Project.weight, Job.priority, Job.created_at)
        .join(Project, Project.id == Job.project_id)
        .where(
            wants_step(step),
            sa.or_(Job.step_dispatched_at.is_(None), Job.step_dispatched_at < resend_before),
        )
        .order_by(Job.priority.desc(), Job.created_at)
        .limit(limit)
    )
    if step is Step.FINALIZE:
        query = query.where(Job.kind.in_(BULK), ~leased.exists())
    return [Candidate(*row, in_flight=0, available=1) for row in session.execute(query)]


def wants_step(step: Step) -> sa.ColumnElement[bool]:
    """Jobs whose next step this is, which nobody holds and which does not wait after a failure."""
    free = sa.or_(Job.step_lease_expires_at.is_(None), Job.step_lease_expires_at < sa.func.now())
    return sa.and_(Job.state.in_(STATES[step]), free, step_leases.due())


def all_chunks_done() -> sa.Select[str]:
    """Running jobs that have no chunk left to do."""
    of_job = sa.select(Chunk.id).where(Chunk.job_id == Job.id)
    return sa.select(Job.id).where(
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
