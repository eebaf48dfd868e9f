"""What stands in the way of training jobs: the facts for ``decisions.waiting_reason``."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs import kinds
from jobs.decisions import gang_scheduling
from jobs.decisions.phrases import OtherJob
from jobs.decisions.waiting_reason import GangFacts, LastHeard
from jobs.kinds import TRAINING
from jobs.lookups import clock, predicates
from jobs.queries import gangs
from jobs.states import FINAL, LIVE_RUN, RankState
from jobs.tables import Host, Job, Rank, Run


def look(session: Session, jobs: Sequence[Job]) -> dict[str, GangFacts]:
    """The facts of those jobs that train or evaluate and have not ended."""
    waiting = [job for job in jobs if job.kind in TRAINING and job.state not in FINAL]
    if not waiting:
        return {}
    live = _live_runs(session, [job.id for job in waiting])
    pools = {job.pool: _Pool(session, job.pool) for job in waiting}
    return {job.id: _facts(session, job, live.get(job.id), pools[job.pool]) for job in waiting}


class _Pool:
    """One pool's hosts and the jobs that want them."""

    def __init__(self, session: Session, pool: str) -> None:
        lately = clock.now(session) - predicates.SILENCE
        alive = session.scalars(sa.select(Host).where(Host.pool == pool, Host.beat_at > lately))
        hosts = alive.all()
        found = [host for host in hosts if not host.draining]
        busy = gangs.busy_pools(session)
        self.hosts = len(found)
        self.draining = len(hosts) - len(found)
        self.refusing = sum(host.sharing == gangs.REFUSE for host in found)
        self.giving_way = sum(
            host.sharing == gangs.YIELD and host.shares_pool in busy for host in found
        )
        self.idle = len(gangs.hosts(session, pool=pool).idle)
        self.requests = gangs.requests(session, pool=pool)
        self.holdings = gangs.holdings(session, pool=pool)

    def ahead(self, job: Job) -> list[str]:
        """Jobs that get hosts before this one does."""
        return gang_scheduling.ahead(
            job.id, self.requests, alive=self.hosts - self.refusing, holdings=self.holdings
        )


def _live_runs(session: Session, job_ids: Sequence[str]) -> dict[str, Run]:
    query = sa.select(Run).where(Run.job_id.in_(job_ids), Run.state.in_(LIVE_RUN))
    return {run.job_id: run for run in session.scalars(query)}


def _facts(session: Session, job: Job, run: Run | None, pool: _Pool) -> GangFacts:
    machines = kinds.training(job.spec).machines
    return GangFacts(
        min_hosts=machines.min,
        not_before=job.not_before,
        run_error=job.run_error,
        run=run.state if run else None,
        unclaimed=_unclaimed(session, run) if run else 0,
        stop_reason=run.stop_reason if run else None,
        missing=_missing(session, run) if run else [],
        hosts=pool.hosts,
        draining=pool.draining,
        refusing=pool.refusing,
        giving_way=pool.giving_way,
        idle=pool.idle,
        ahead=_described(session, job, [] if run else pool.ahead(job)),
    )


def _unclaimed(session: Session, run: Run) -> int:
    query = (
        sa.select(sa.func.count())
        .select_from(Rank)
        .where(Rank.run_id == run.id, Rank.state == RankState.PENDING)
    )
    return session.scalar(query) or 0


def _missing(session: Session, run: Run) -> list[LastHeard]:
    """Hosts of the run that have missed heartbeats."""
    query = (
        sa.select(Host.name, Host.beat_at)
        .where(Host.run_id == run.id, Host.beat_at < sa.func.now() - predicates.OVERDUE)
        .order_by(Host.name)
    )
    return [LastHeard(*row) for row in session.execute(query)]


def _described(session: Session, job: Job, job_ids: Sequence[str]) -> list[OtherJob]:
    if not job_ids:
        return []
    query = sa.select(
        Job.id, Job.spec["name"].as_string(), Job.priority, Job.project_id == job.project_id
    ).where(Job.id.in_(job_ids))
    found = {row.id: OtherJob(*row) for row in session.execute(query)}
    return [found[job_id] for job_id in job_ids]
