"""What each worker, planner and host works on at the moment."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.lookups import clock, holders, predicates, subjects
from jobs.message_words import Subject
from jobs.states import LIVE_RUN, STEP_STATES, ChunkState, JobState, RankState
from jobs.tables import Chunk, Host, Job, Rank, Run

MOST = 2_000
"""Leases that are read at once."""

_WITH_STEPS = frozenset().union(*STEP_STATES.values())


@dataclass(frozen=True)
class HeldChunk:
    """A leased chunk."""

    worker: str  # on record, without the process
    number: int | None
    first_row: int
    rows: int
    fraction_done: float | None  # null: its worker has not reported yet
    begun_at: datetime | None  # null: its worker still loads the model
    lease_expires_at: datetime
    subject: Subject


@dataclass(frozen=True)
class HeldStep:
    """A job that a planner plans or finalizes."""

    worker: str
    state: JobState
    subject: Subject


@dataclass(frozen=True)
class HostNow:
    """A host, and the rank that it has at the moment."""

    host: Host
    alive: bool
    run: Run | None  # null: it is idle
    rank: Rank | None  # null: it is idle, or its rank has ended
    subject: Subject | None  # null: it is idle


def chunks(session: Session, *, job_id: str | None = None, limit: int = MOST) -> list[HeldChunk]:
    """Chunks that workers hold, of one job or of all, by worker."""
    query = (
        sa.select(
            holders.worker(Chunk.owner).label("worker"),
            *(Chunk.number, Chunk.first_row, Chunk.rows),
            *(Chunk.fraction_done, Chunk.begun_at, Chunk.lease_expires_at),
            *subjects.columns(),
        )
        .select_from(Chunk)
        .join(Job, Job.id == Chunk.job_id)
        .where(Chunk.state == ChunkState.LEASED)
        .order_by(Chunk.owner, Chunk.id)
        .limit(limit)
    )
    if job_id is not None:
        query = query.where(Chunk.job_id == job_id)
    return [
        HeldChunk(
            worker=row.worker,
            number=row.number,
            first_row=row.first_row,
            rows=row.rows,
            fraction_done=row.fraction_done,
            begun_at=row.begun_at,
            lease_expires_at=row.lease_expires_at,
            subject=subjects.of(row),
        )
        for row in session.execute(query)
    ]


def steps(session: Session, *, limit: int = MOST) -> list[HeldStep]:
    """Jobs that planners plan or finalize, by planner."""
    query = (
        sa.select(holders.worker(Job.step_owner).label("worker"), Job.state, *subjects.columns())
        .where(Job.state.in_(_WITH_STEPS), Job.step_owner.is_not(None))
        .order_by(Job.step_owner, Job.id)
        .limit(limit)
    )
    rows = session.execute(query)
    return [HeldStep(worker=row.worker, state=row.state, subject=subjects.of(row)) for row in rows]


def hosts(session: Session, *, limit: int = MOST) -> list[HostNow]:
    """Every host on record, by pool and name."""
    ours = sa.and_(
        Rank.run_id == Host.run_id, Rank.host == Host.name, Rank.state != RankState.ENDED
    )
    query = (
        sa.select(Host, Run, Rank, *subjects.columns())
        .select_from(Host)
        .outerjoin(Run, sa.and_(Run.id == Host.run_id, Run.state.in_(LIVE_RUN)))
        .outerjoin(Job, Job.id == Run.job_id)
        .outerjoin(Rank, ours)
        .order_by(Host.pool, Host.name)
        .limit(limit)
    )
    now = clock.now(session)
    return [
        HostNow(
            host=row.Host,
            alive=row.Host.beat_at > now - predicates.SILENCE,
            run=row.Run,
            rank=row.Rank,
            subject=None if row.Run is None else subjects.of(row),
        )
        for row in session.execute(query)
    ]
