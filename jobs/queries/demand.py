"""What the work of pools wants, and what it has: the facts for ``decisions.demand``.

Never reads more of a job than ``MOST_COUNTED`` pending chunks and its first ``SAMPLE`` ones.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.decisions import demand
from jobs.decisions.demand import JobWork, SlotDemand
from jobs.kinds import BULK
from jobs.lookups import clock, predicates
from jobs.queries import capacity, gangs
from jobs.states import CLAIMABLE, ChunkState, JobState
from jobs.tables import Chunk, Host, Job

MOST_COUNTED = 10_000
SAMPLE = 100
"""Chunks of a job; those that are done say how long one takes."""
DRAIN = timedelta(minutes=10)
"""Default time within which work without a deadline should end."""


@dataclass(frozen=True)
class PoolDemand:
    """One pool at one moment."""

    pool: str
    slots: SlotDemand
    slots_heard: int  # of workers that are heard
    slots_busy: int  # chunks under way
    chunks_pending: int  # of each job ``MOST_COUNTED`` at most
    chunks_sent: int  # of those, with a message in the queue
    jobs: int  # bulk jobs whose work it is
    hosts_wanted: int
    hosts_heard: int
    hosts_busy: int


@dataclass(frozen=True)
class _JobChunks:
    """A job that has chunks, or as many as there are ``jobs`` that are not planned."""

    pool: str
    state: JobState
    deadline: datetime | None
    jobs: int
    pending: int = 0
    sent: int = 0
    leased: int = 0
    chunk_seconds: float | None = None

    @property
    def work(self) -> JobWork:
        chunks = self.pending + self.leased
        unplanned = self.state in {JobState.QUEUED, JobState.PLANNING} and not chunks
        return JobWork(self.jobs if unplanned else chunks, self.chunk_seconds, self.deadline)


def of_pool(session: Session, pool: str, *, within: timedelta = DRAIN) -> PoolDemand:
    """The demand of a pool; zero of one that no job and no worker names."""
    return _of_pools(session, [pool], within=within)[0]


def of_all(
    session: Session, *, within: timedelta = DRAIN, project_id: str | None = None
) -> list[PoolDemand]:
    """The demand of every pool that has workers, hosts or work, by name.

    ``project_id``: a pool that has nothing but work is left out unless it is this project's, since
    its name is (promise P9); ``None``: none is.
    """
    return _of_pools(session, _names(session, project_id=project_id), within=within)


def _of_pools(session: Session, pools: Sequence[str], *, within: timedelta) -> list[PoolDemand]:
    now = clock.now(session)
    heard = capacity.slots_by_pool(session)
    hosts, hosts_wanted = _hosts(session), gangs.hosts_wanted(session)
    jobs: dict[str, list[_JobChunks]] = defaultdict(list)
    for query in (_queued_jobs(), _job_rows()):
        for row in session.execute(query.where(Job.pool.in_(pools))):
            found = _JobChunks(*row)
            jobs[found.pool].append(found)
    return [
        PoolDemand(
            pool=pool,
            slots=demand.slots((job.work for job in jobs[pool]), now=now, within=within),
            slots_heard=heard.get(pool, 0),
            slots_busy=sum(job.leased for job in jobs[pool]),
            chunks_pending=sum(job.pending for job in jobs[pool]),
            chunks_sent=sum(job.sent for job in jobs[pool]),
            jobs=sum(job.jobs for job in jobs[pool]),
            hosts_wanted=hosts_wanted.get(pool, 0),
            hosts_heard=sum(hosts.get(pool, (0, 0))),
            hosts_busy=hosts.get(pool, (0, 0))[1],
        )
        for pool in pools
    ]


def _queued_jobs() -> sa.Select[*tuple[Any, ...]]:
    """Those that no planner has begun: there may be very many, and they have no chunks."""
    alike = (Job.pool, Job.state, Job.expires_at)
    queued = sa.and_(Job.kind.in_(BULK), Job.state == JobState.QUEUED, ~Job.held)
    return sa.select(*alike, sa.func.count()).where(queued).group_by(*alike)


def _job_rows() -> sa.Select[*tuple[Any, ...]]:
    of_job = sa.select(sa.func.count()).where(Chunk.job_id == Job.id)
    leased = of_job.where(Chunk.state == ChunkState.LEASED)
    sent = of_job.where(Chunk.state == ChunkState.PENDING, Chunk.dispatched_at.is_not(None))
    some = (
        sa.select(Chunk.id)
        .where(Chunk.job_id == Job.id, Chunk.state == ChunkState.PENDING)
        .order_by(Chunk.first_row)  # which keeps to the index of pending chunks
        .limit(MOST_COUNTED)
        .correlate(Job)
        .subquery()
        .lateral()
    )
    pending = sa.select(sa.func.count().label("pending")).select_from(some).lateral()
    took = sa.cast(sa.extract("epoch", Chunk.done_at - Chunk.begun_at), sa.Double)
    first = (
        sa.select(sa.case((Chunk.state == ChunkState.DONE, took)).label("took"))
        .where(Chunk.job_id == Job.id, Chunk.state != ChunkState.SPLIT)
        .order_by(Chunk.first_row)
        .limit(SAMPLE)
        .correlate(Job)
        .subquery()
        .lateral()
    )
    seconds = sa.select(sa.func.avg(first.c.took).label("seconds")).select_from(first).lateral()
    return (
        sa.select(
            *(Job.pool, Job.state, Job.expires_at, sa.literal(1), pending.c.pending),
            *(sent.scalar_subquery(), leased.scalar_subquery(), seconds.c.seconds),
        )
        .select_from(Job)
        .join(pending, sa.true())
        .join(seconds, sa.true())
        .where(Job.kind.in_(BULK), Job.state.in_(CLAIMABLE))
    )


def _names(session: Session, *, project_id: str | None) -> list[str]:
    workers = {worker.pool for worker in capacity.workers(session)} - {capacity.PLANNERS}
    hosts = session.scalars(sa.select(Host.pool).distinct())
    states = (JobState.QUEUED, *CLAIMABLE)
    jobs = sa.select(Job.pool).where(Job.state.in_(states)).distinct()
    if project_id is not None:
        jobs = jobs.where(Job.project_id == project_id)
    return sorted({*workers, *hosts, *session.scalars(jobs)})


def _hosts(session: Session) -> dict[str, tuple[int, int]]:
    """Hosts of each pool that are heard and do not drain: idle ones, busy ones."""
    idle = sa.func.count().filter(Host.run_id.is_(None))
    busy = sa.func.count().filter(Host.run_id.is_not(None))
    query = (
        sa.select(Host.pool, idle, busy)
        .where(Host.beat_at > sa.func.now() - predicates.SILENCE, ~Host.draining)
        .group_by(Host.pool)
    )
    return {pool: (free, taken) for pool, free, taken in session.execute(query)}
