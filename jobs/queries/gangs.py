"""Who wants hosts, who has them, who is there: the facts for ``decisions.gang_scheduling``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs import kinds, message_words
from jobs.decisions.gang_scheduling import GangRequest, Holding
from jobs.decisions.run_verdict import RankFacts, RankOutcome, going_away
from jobs.kinds import BULK, TRAINING
from jobs.lookups import clock, predicates, subjects
from jobs.states import CLAIMABLE, LIVE_RUN, ChunkState, JobState, RankState
from jobs.tables import Chunk, Host, Job, Project, Rank, Run

BATCH = 500
YIELD, REFUSE = "yield", "refuse"


@dataclass(frozen=True)
class Hosts:
    """A pool's hosts at one moment."""

    alive: int  # that could take ranks, now or later
    idle: tuple[str, ...]


@dataclass(frozen=True)
class RankMessage:
    """A message to the host of a rank, with words for people who watch the queue."""

    run_id: str
    rank: int
    host: str
    incarnation: str
    words: str


def any_wanted() -> sa.ColumnElement[bool]:
    """Whether a run holds hosts, or a training job wants some or waits for their end."""
    live = sa.select(Run.id).where(Run.state.in_(LIVE_RUN))
    jobs = sa.select(Job.id).where(
        Job.kind.in_(TRAINING), Job.state.in_((JobState.RUNNING, JobState.CANCELLING))
    )
    return sa.or_(live.exists(), jobs.exists())


def pools(session: Session) -> list[str]:
    """Pools that have a training job which wants a gang."""
    return list(session.scalars(_wanting(Job.pool).distinct()))


def requests(session: Session, *, pool: str) -> list[GangRequest]:
    """The pool's jobs that want a gang, the first ``BATCH`` by priority and age."""
    query = (
        _wanting(Job.id, Job.project_id, Project.weight, Job.priority, Job.created_at, Job.spec)
        .join(Project, Project.id == Job.project_id)
        .where(Job.pool == pool)
        .order_by(Job.priority.desc(), Job.created_at)
        .limit(BATCH)
    )
    return [_request(row) for row in session.execute(query)]


def holdings(session: Session, *, pool: str) -> list[Holding]:
    """Live runs of the pool."""
    query = (
        sa.select(
            *(Run.id, Job.project_id, Job.priority, Run.machines, Run.created_at),
            Run.stop.is_not(None),
        )
        .join(Job, Job.id == Run.job_id)
        .where(Job.pool == pool, Run.state.in_(LIVE_RUN))
    )
    return [Holding(*row) for row in session.execute(query)]


def hosts_wanted(session: Session) -> dict[str, int]:
    """By pool, the hosts of live runs, and as many as the jobs that wait need at least.

    Of these jobs ``BATCH`` count, those with the highest priority.
    """
    live = (
        sa.select(Job.pool, sa.func.sum(Run.machines))
        .select_from(Run)
        .join(Job, Job.id == Run.job_id)
        .where(Run.state.in_(LIVE_RUN))
        .group_by(Job.pool)
    )
    found = {pool: int(machines) for pool, machines in session.execute(live)}
    waiting = _wanting(Job.pool, Job.spec).order_by(Job.priority.desc()).limit(BATCH)
    for pool, spec in session.execute(waiting):
        found[pool] = found.get(pool, 0) + kinds.training(spec).machines.min
    return found


def hosts(session: Session, *, pool: str) -> Hosts:
    """The pool's hosts; those that refuse to train are as good as not there."""
    busy = busy_pools(session)
    lately = clock.now(session) - predicates.SILENCE
    found = sa.select(Host).where(Host.pool == pool, Host.beat_at > lately, ~Host.draining)
    alive = [host for host in session.scalars(found.order_by(Host.name)) if host.sharing != REFUSE]
    idle = [
        host.name
        for host in alive
        if host.run_id is None and not (host.sharing == YIELD and host.shares_pool in busy)
    ]
    return Hosts(alive=len(alive), idle=tuple(idle))


def yielding(session: Session) -> list[str]:
    """Live runs, not asked to stop yet, on hosts that yield to a bulk pool which has work."""
    query = (
        sa.select(Run.id)
        .join(Host, Host.run_id == Run.id)
        .where(
            Run.state.in_(LIVE_RUN),
            Run.stop.is_(None),
            Host.sharing == YIELD,
            Host.shares_pool.in_(busy_pools(session)),
        )
    )
    return list(session.scalars(query.distinct()))


def busy_pools(session: Session) -> set[str]:
    """Bulk pools with chunks to do."""
    todo = sa.select(Chunk.id).where(
        Chunk.job_id == Job.id, Chunk.state.in_((ChunkState.PENDING, ChunkState.LEASED))
    )
    query = sa.select(Job.pool).where(Job.kind.in_(BULK), Job.state.in_(CLAIMABLE), todo.exists())
    return set(session.scalars(query.distinct()))


def live_runs(session: Session) -> list[Run]:
    """Every run that holds hosts."""
    return list(session.scalars(sa.select(Run).where(Run.state.in_(LIVE_RUN)).order_by(Run.id)))


def run(session: Session, run_id: str) -> Run:
    """One run, as it is now."""
    return session.get_one(Run, run_id)


def ranks(session: Session, run_ids: Sequence[str]) -> dict[str, list[RankFacts]]:
    """The ranks of some runs, in order."""
    found: dict[str, list[RankFacts]] = {run_id: [] for run_id in run_ids}
    query = sa.select(Rank).where(Rank.run_id.in_(run_ids)).order_by(Rank.run_id, Rank.rank)
    for rank in session.scalars(query):
        found[rank.run_id].append(_facts(rank))
    return found


def unwanted(session: Session) -> list[tuple[str, str, str]]:
    """Live runs that should end: id, how, and why in words."""
    draining = (
        sa.select(Host.name).where(Host.run_id == Run.id, Host.draining).limit(1).scalar_subquery()
    )
    query = (
        sa.select(Run.id, Job.state, draining)
        .join(Job, Job.id == Run.job_id)
        .where(
            Run.state.in_(LIVE_RUN),
            sa.or_(Run.stop.is_(None), Run.stop == "checkpoint"),
            sa.or_(Job.state != JobState.RUNNING, draining.is_not(None)),
        )
    )
    return [(run_id, *_why(state, host)) for run_id, state, host in session.execute(query)]


def undispatched_ranks(session: Session, *, resend_after: timedelta) -> list[RankMessage]:
    """Ranks that their hosts have not claimed: never sent, or sent too long ago."""
    query = (
        sa.select(Rank, Run.number, Run.machines, *subjects.columns())
        .select_from(Rank)
        .join(Run, Run.id == Rank.run_id)
        .join(Job, Job.id == Run.job_id)
        .where(
            Rank.state == RankState.PENDING,
            Run.state.in_(LIVE_RUN),
            Run.stop.is_(None),
            sa.or_(Rank.dispatched_at.is_(None), Rank.dispatched_at < sa.func.now() - resend_after),
        )
        .order_by(Rank.run_id, Rank.rank)
        .limit(BATCH)
    )
    return [
        RankMessage(
            run_id=row.Rank.run_id,
            rank=row.Rank.rank,
            host=row.Rank.host,
            incarnation=row.Rank.incarnation,
            words=message_words.rank(
                subjects.of(row), number=row.Rank.rank, machines=row.machines, run=row.number
            ),
        )
        for row in session.execute(query)
    ]


def _wanting(*columns: Any) -> sa.Select[Any]:
    live = sa.select(Run.id).where(Run.job_id == Job.id, Run.state.in_(LIVE_RUN))
    return sa.select(*columns).where(
        Job.kind.in_(TRAINING),
        Job.state == JobState.RUNNING,
        sa.or_(Job.not_before.is_(None), Job.not_before <= sa.func.now()),
        ~live.exists(),
    )


def _request(row: Any) -> GangRequest:
    machines = kinds.training(row.spec).machines
    return GangRequest(
        job_id=row.id,
        project_id=row.project_id,
        weight=row.weight,
        priority=row.priority,
        created_at=row.created_at,
        min_hosts=machines.min,
        max_hosts=machines.max,
    )


def _facts(rank: Rank) -> RankFacts:
    return RankFacts(
        rank=rank.rank,
        host=rank.host,
        state=rank.state,
        outcome=RankOutcome(rank.outcome) if rank.outcome else None,
        exit_code=rank.exit_code,
        error_code=rank.error_code,
        error=rank.error,
        lease_expires_at=rank.lease_expires_at,
        progress_at=rank.progress_at,
        ended_at=rank.ended_at,
    )


def _why(state: JobState, draining_host: str | None) -> tuple[str, str]:
    match state:
        case JobState.RUNNING:
            return "checkpoint", going_away(draining_host or "")
        case JobState.PAUSED:
            return "checkpoint", "the job was paused"
        case JobState.CANCELLING:
            return "now", "the job was cancelled"
    return "now", f"the job is {state}"
