"""What stands in the way of jobs: the facts for ``decisions.waiting_reason``.

What only a job that waits needs to know is asked only if there is one.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs import worker_names
from jobs.decisions.phrases import OtherJob
from jobs.decisions.waiting_reason import JobFacts, LostLease, Situation
from jobs.lookups import dependencies, holders, predicates
from jobs.queries import capacity, gang_waits
from jobs.states import ACTIVE, CLAIMABLE, STEP_STATES, ChunkState, JobState
from jobs.tables import Chunk, Job, Worker

_MAY_WAIT_FOR_PLANNER = frozenset().union(*STEP_STATES.values())


class ChunkCounts(Protocol):
    """What is counted of a job's chunks."""

    @property
    def pending(self) -> int: ...
    @property
    def sent(self) -> int: ...
    @property
    def failing(self) -> int: ...
    @property
    def retry_at(self) -> datetime | None: ...
    @property
    def last_error(self) -> str | None: ...
    @property
    def leased(self) -> int: ...
    @property
    def expired(self) -> int: ...


def situations(
    session: Session, jobs: Sequence[Job], counts: Mapping[str, ChunkCounts], *, now: datetime
) -> dict[str, Situation]:
    """What may stand in the way of each of those jobs; jobs that have ended are left out."""
    active = [job for job in jobs if job.state in ACTIVE]
    if not active:
        return {}
    look = _Look(session, active, counts, now=now)
    gangs = gang_waits.look(session, active)
    return {job.id: Situation(look.facts(job), gangs.get(job.id)) for job in active}


@dataclass(frozen=True)
class _PoolJob:
    """A job that has slots or places in the queue of its pool."""

    job_id: str
    name: str | None
    priority: int
    project_id: str
    leased: int  # chunks, by workers that are heard
    sent: int

    def beside(self, job: Job) -> OtherJob:
        return OtherJob(
            self.job_id, self.name, self.priority, same_project=self.project_id == job.project_id
        )


class _Look:
    """The surroundings of some jobs at one moment."""

    def __init__(
        self,
        session: Session,
        jobs: Sequence[Job],
        counts: Mapping[str, ChunkCounts],
        *,
        now: datetime,
    ) -> None:
        self._session = session
        self._counts = counts
        self._now = now
        self._around = capacity.look(session)
        self._overdue = {
            name: at for pool in self._around.pools.values() for name, at in pool.overdue.items()
        }
        self._lost = self._lost_leases(jobs)
        held = [job.id for job in jobs if job.held]
        self._needs = dependencies.needs(session, held) if held else {}
        self._pool_jobs: dict[str, list[_PoolJob]] = {}

    def facts(self, job: Job) -> JobFacts:
        """One job's facts."""
        around, count, lost = self._around, self._counts[job.id], self._lost.get(job.id, [])
        leased = max(0, count.leased - sum(lease.chunks for lease in lost))
        waits = count.pending > 0 and leased == 0 and job.state in CLAIMABLE
        others = self._others(job) if waits else []
        step_lost = self._step_lost(job)
        step_held = job.step_lease_expires_at is not None and step_lost is None
        plans = job.state in _MAY_WAIT_FOR_PLANNER and not step_held
        workers = around.pools.get(job.pool)
        return JobFacts(
            now=self._now,
            state=job.state,
            priority=job.priority,
            pool=job.pool,
            control_turned_at=around.control_turned_at,
            broker_error=around.broker_error,
            slots=around.slots(job.pool),
            last_heard=workers.last_heard if workers else None,
            busy_slots=sum(other.leased for other in others),
            computed=[other.beside(job) for other in others if other.leased],
            queued=[other.beside(job) for other in others if other.sent],
            pending=count.pending,
            sent=count.sent,
            failing=count.failing,
            retry_at=count.retry_at,
            last_error=count.last_error,
            leased=leased,
            lost=lost,
            planners=around.slots(capacity.PLANNERS),
            planning=[other.beside(job) for other in self._planned_beside(job)] if plans else [],
            step_held=step_held,
            step_lost=step_lost,
            step_error=job.step_error,
            step_not_before=job.step_not_before,
            held=job.held,
            needs=self._needs.get(job.id, ()),
        )

    def _others(self, job: Job) -> list[_PoolJob]:
        """All but this one, which may have been claimed since its chunks were counted."""
        if job.pool not in self._pool_jobs:
            rows = self._session.execute(pool_rows(), {"pool": job.pool})
            self._pool_jobs[job.pool] = [_PoolJob(*row) for row in rows]
        return [other for other in self._pool_jobs[job.pool] if other.job_id != job.id]

    def _planned_beside(self, job: Job) -> list[_PoolJob]:
        return [other for other in self._planned if other.job_id != job.id]

    @functools.cached_property
    def _planned(self) -> list[_PoolJob]:
        rows = self._session.execute(step_rows())
        return [
            _PoolJob(row.id, row.name, row.priority, row.project_id, leased=0, sent=0)
            for row in rows
        ]

    def _step_lost(self, job: Job) -> LostLease | None:
        """The lease on the job's step, if it has run out or its planner has missed heartbeats."""
        ends_at, owner = job.step_lease_expires_at, job.step_owner
        if ends_at is None or owner is None:
            return None
        worker = worker_names.holder(owner)
        if ends_at > self._now and worker not in self._overdue:
            return None
        return LostLease(worker, self._overdue.get(worker), chunks=0, ends_at=ends_at)

    def _lost_leases(self, jobs: Sequence[Job]) -> dict[str, list[LostLease]]:
        """By job, the leases on chunks that ran out, or whose workers have missed heartbeats."""
        asked = [
            job.id
            for job in jobs
            if (count := self._counts[job.id]).expired or (count.leased and self._overdue)
        ]
        found: dict[str, list[LostLease]] = {}
        if not asked:
            return found
        for job_id, worker, chunks, ends_at in self._session.execute(
            lease_rows(), {"job_ids": asked}
        ):
            if ends_at < self._now or worker in self._overdue:
                lease = LostLease(worker, self._overdue.get(worker), chunks, ends_at)
                found.setdefault(job_id, []).append(lease)
        return found


@functools.cache
def pool_rows() -> sa.Select[*tuple[Any, ...]]:
    """Jobs of a ``pool`` that have chunks at workers or in the queue, the busiest first."""
    leased = (
        sa.select(sa.func.count())
        .select_from(Chunk)
        .join(Worker, Worker.name == holders.worker(Chunk.owner))
        .where(
            Chunk.job_id == Job.id,
            Chunk.state == ChunkState.LEASED,
            Chunk.lease_expires_at > sa.func.now(),
            Worker.beat_at > sa.func.now() - predicates.OVERDUE,
        )
        .correlate(Job)
        .scalar_subquery()
    )
    sent = (
        sa.select(sa.func.count())
        .where(
            Chunk.job_id == Job.id,
            Chunk.state == ChunkState.PENDING,
            Chunk.dispatched_at.is_not(None),
        )
        .correlate(Job)
        .scalar_subquery()
    )
    jobs = (
        sa.select(*_described(), leased.label("leased"), sent.label("sent"))
        .where(Job.pool == sa.bindparam("pool"), Job.state.in_(_with_chunks()))
        .subquery()
    )
    return (
        sa.select(jobs)
        .where(sa.or_(jobs.c.leased > 0, jobs.c.sent > 0))
        .order_by(jobs.c.leased.desc(), jobs.c.sent.desc(), jobs.c.id)
    )


@functools.cache
def step_rows() -> sa.Select[*tuple[Any, ...]]:
    """Jobs whose step a planner does that is heard and does not drain."""
    return (
        sa.select(*_described())
        .join(Worker, Worker.name == holders.worker(Job.step_owner))
        .where(
            Job.state.in_(_MAY_WAIT_FOR_PLANNER),
            Job.step_lease_expires_at > sa.func.now(),
            Worker.beat_at > sa.func.now() - predicates.OVERDUE,
        )
        .order_by(Job.priority.desc(), Job.created_at)
    )


@functools.cache
def lease_rows() -> sa.Select[*tuple[Any, ...]]:
    """Of ``job_ids``, leased chunks by job and worker; those that ran out apart from the others."""
    holder, expired = holders.worker(Chunk.owner), Chunk.lease_expires_at < sa.func.now()
    return (
        sa.select(Chunk.job_id, holder, sa.func.count(), sa.func.max(Chunk.lease_expires_at))
        .where(
            Chunk.job_id.in_(sa.bindparam("job_ids", expanding=True)),
            Chunk.state == ChunkState.LEASED,
        )
        .group_by(Chunk.job_id, holder, expired)
        .order_by(Chunk.job_id, sa.func.max(Chunk.lease_expires_at), holder)
    )


def _described() -> tuple[sa.ColumnElement[Any], ...]:
    return (
        Job.id,  # type: ignore[return-value]
        Job.spec["name"].as_string().label("name"),
        Job.priority,
        Job.project_id,
    )


def _with_chunks() -> frozenset[JobState]:
    """States in which chunks of a job may be at workers."""
    return frozenset({*CLAIMABLE, JobState.PAUSED, JobState.CANCELLING})
