"""What could be sent to workers now: the facts for fair share and the dispatch window.

The queries never scan past what is not eligible: chunks by the partial index over pending ones,
jobs by the partial index over those that have not ended.
"""

from __future__ import annotations

import functools
from datetime import datetime
from typing import Any

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


def candidates(
    session: Session, *, pool: str, limit: int, resend_before: datetime | None = None
) -> list[Candidate]:
    """The pool's jobs whose chunks may be claimed; ``available`` counts up to ``limit``.

    Chunks with a message that was sent before ``resend_before`` are both sent and available.
    """
    values = {"pool": pool, "limit": limit, "resend_before": resend_before}
    rows = session.execute(candidate_rows(resend=resend_before is not None), values)
    return [Candidate(*row) for row in rows]


@functools.cache  # to build it takes longer than to run it
def candidate_rows(*, resend: bool) -> sa.Select[*tuple[Any, ...]]:
    """The fields of ``Candidate``; parameters are ``pool``, ``limit`` and ``resend_before``."""
    before = sa.bindparam("resend_before", type_=sa.DateTime(timezone=True)) if resend else None
    ready = (
        sa.select(sa.literal(1).label("one"))
        .where(Chunk.job_id == Job.id, predicates.chunk_dispatchable(before))
        .order_by(Chunk.first_row)  # which keeps to the index of pending chunks
        .limit(sa.bindparam("limit", type_=sa.Integer))
        .correlate(Job)
        .subquery()
        .lateral()
    )
    available = sa.select(sa.func.count().label("available")).select_from(ready).lateral()
    leased = sa.select(sa.func.count()).where(
        Chunk.job_id == Job.id, Chunk.state == ChunkState.LEASED
    )
    sent = sa.select(sa.func.count()).where(
        Chunk.job_id == Job.id,
        Chunk.state == ChunkState.PENDING,
        Chunk.dispatched_at.is_not(None),
    )
    return (
        sa.select(
            *(Job.id, Job.project_id, Project.weight, Job.priority, Job.created_at),
            *(leased.scalar_subquery(), sent.scalar_subquery(), available.c.available),
        )
        .join(Project, Project.id == Job.project_id)
        .join(available, sa.true())
        .where(Job.pool == sa.bindparam("pool"), has_claimable_chunks())
    )


def may_be_out_of_turn(session: Session, *, pool: str) -> bool:
    """Whether a job of the pool may go before what is in its queue: cheaper than the candidates."""
    return bool(session.scalar(overtaking(), {"pool": pool}))


@functools.cache  # to build it takes longer than to run it
def overtaking() -> sa.Select[bool]:
    """Whether the ``pool`` has a job as ``fair_share.is_out_of_turn`` looks for."""
    of_job = sa.select(Chunk.id).where(Chunk.job_id == Job.id)
    pending = of_job.where(Chunk.state == ChunkState.PENDING)
    jobs = (
        sa.select(
            Job.priority,
            pending.where(Chunk.dispatched_at.is_not(None)).exists().label("sent"),
            of_job.where(Chunk.state == ChunkState.LEASED).exists().label("leased"),
            pending.where(predicates.chunk_dispatchable(None)).exists().label("available"),
        )
        .where(Job.pool == sa.bindparam("pool"), has_claimable_chunks())
        .cte("pool_jobs")
    )
    lowest = sa.select(sa.func.min(jobs.c.priority)).where(jobs.c.sent).scalar_subquery()
    goes_first = sa.or_(sa.not_(sa.or_(jobs.c.sent, jobs.c.leased)), jobs.c.priority > lowest)
    return sa.select(sa.func.bool_or(sa.and_(jobs.c.available, goes_first)))


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
    return [Candidate(*row, leased=0, sent=0, available=1) for row in session.execute(query)]


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
