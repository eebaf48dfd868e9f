"""Runs: form, stop, conclude, succeed. All moves of a run stand here; of its ranks, in ``ranks``.

A run's fence is its number within the job: a lease of an older run changes nothing.

Rows are locked in one order everywhere: run, host, rank, job; or job and host for a new run.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from jobs import ids
from jobs.decisions.run_verdict import Fault, RankOutcome, RunVerdict
from jobs.errors import LeaseLost
from jobs.ledger import checkpoints, events, ranks, transitions
from jobs.ledger.ranks import RankLease
from jobs.states import LIVE_RUN, JobState, RankState, RunState
from jobs.tables import Host, Job, Rank, Run

BACKOFF_CAP = 300


def form(session: Session, job_id: str, hosts: Sequence[str]) -> str | None:
    """Reserve the hosts for a new run of the job, all or none; the run's id.

    ``None``: the job needs no gang any more, or one of the hosts is taken or gone.
    """
    job = session.scalar(sa.select(Job).where(Job.id == job_id).with_for_update())
    if job is None or job.state is not JobState.RUNNING or _live(session, job_id):
        return None
    found = session.scalars(
        sa.select(Host)
        .where(Host.name.in_(hosts), Host.run_id.is_(None), ~Host.draining)
        .order_by(Host.name)  # two that form gangs lock in the same order
        .with_for_update()
    ).all()
    if len(found) != len(hosts):
        return None
    run_id = _insert_run(session, job, [next(h for h in found if h.name == name) for name in hosts])
    session.execute(sa.update(Host).where(Host.name.in_(hosts)).values(run_id=run_id))
    return run_id


def request_stop(session: Session, run_id: str, *, how: str, reason: str) -> bool:
    """Ask the ranks of a live run to end: after a ``checkpoint``, or ``now``, which is stronger."""
    weaker = (
        Run.stop.is_(None)
        if how == "checkpoint"
        else sa.or_(Run.stop.is_(None), Run.stop == "checkpoint")
    )
    asked = session.execute(
        sa.update(Run)
        .where(Run.id == run_id, Run.state.in_(LIVE_RUN), weaker)
        .values(stop=how, stop_reason=reason)
        .returning(Run.job_id, Run.number)
    ).one_or_none()
    if asked is None:
        return False
    ranks.end_unclaimed(session, run_id)
    events.record(
        session, job_id=asked.job_id, type="run_stops", run=asked.number, how=how, reason=reason
    )
    return True


def conclude(
    session: Session, run_id: str, verdict: RunVerdict, *, most_faults: int, most_errors: int
) -> bool:
    """End a live run that did not succeed: its hosts are free, its job waits again or fails."""
    run = session.scalar(
        sa.select(Run).where(Run.id == run_id, Run.state.in_(LIVE_RUN)).with_for_update()
    )
    if run is None:
        return False
    _finish(session, run, verdict)
    job = session.scalar(sa.select(Job).where(Job.id == run.job_id).with_for_update())
    assert job is not None
    job.run_error = None if verdict.state is RunState.PREEMPTED else verdict.reason
    if verdict.state is RunState.FAILED:
        _fail(session, job, code=verdict.code or "run_failed", message=verdict.reason or "")
    elif verdict.state is RunState.LOST:
        _count(session, job, run, verdict, most_faults=most_faults, most_errors=most_errors)
    session.flush()
    events.wake_control(session)
    return True


def succeed(session: Session, lease: RankLease, *, output: dict[str, Any]) -> None:
    """End the run and its job well. Raises ``LeaseLost``.

    Rank 0 calls this, in the transaction that commits the result.
    """
    ranks.confirm(session, lease)
    _finish(session, session.get_one(Run, lease.run_id), RunVerdict(RunState.SUCCEEDED))
    session.execute(
        sa.update(Rank)
        .where(Rank.run_id == lease.run_id, Rank.state != RankState.ENDED)
        .values(**ranks.ending(RankOutcome.DONE))
    )
    if not transitions.move(
        session,
        lease.job_id,
        JobState.SUCCEEDED,
        only_from=(JobState.RUNNING,),
        output=output,
        run_error=None,
    ):
        raise LeaseLost(f"{lease.job_id} is no longer running; the result is thrown away")


def end_cancelled(session: Session, *, kinds: Sequence[str]) -> int:
    """Jobs being cancelled whose ranks are gone have ended; the number of them."""
    live = sa.select(Run.id).where(Run.job_id == Job.id, Run.state.in_(LIVE_RUN))
    ready = session.scalars(
        sa.select(Job.id).where(
            Job.state == JobState.CANCELLING, Job.kind.in_(kinds), ~live.exists()
        )
    ).all()
    return sum(transitions.move(session, job_id, JobState.CANCELLED) for job_id in ready)


def _live(session: Session, job_id: str) -> bool:
    query = sa.select(Run.id).where(Run.job_id == job_id, Run.state.in_(LIVE_RUN))
    return session.scalar(query) is not None


def _insert_run(session: Session, job: Job, hosts: Sequence[Host]) -> str:
    last = session.scalar(sa.select(sa.func.max(Run.number)).where(Run.job_id == job.id))
    newest = checkpoints.newest(session, job.id)
    run_id, number = ids.run(), (last or 0) + 1
    session.execute(
        insert(Run).values(
            id=run_id,
            job_id=job.id,
            number=number,
            state=RunState.FORMING,
            machines=len(hosts),
            address=hosts[0].address,
            checkpoint_id=newest.id if newest else None,
            step=newest.step if newest else 0,
        )
    )
    session.execute(
        insert(Rank),
        [
            {
                "run_id": run_id,
                "rank": rank,
                "host": host.name,
                "incarnation": host.incarnation,
                "address": host.address,
            }
            for rank, host in enumerate(hosts)
        ],
    )
    events.record(
        session,
        job_id=job.id,
        type="run",
        run=number,
        state=RunState.FORMING,
        hosts=[host.name for host in hosts],
        from_step=newest.step if newest else 0,
    )
    return run_id


def _finish(session: Session, run: Run, verdict: RunVerdict) -> None:
    session.execute(
        sa.update(Run)
        .where(Run.id == run.id)
        .values(
            state=verdict.state,
            reason=verdict.reason,
            failing_rank=verdict.rank,
            finished_at=sa.func.now(),
        )
    )
    session.execute(sa.update(Host).where(Host.run_id == run.id).values(run_id=None))
    events.record(
        session,
        job_id=run.job_id,
        type="run",
        run=run.number,
        state=verdict.state,
        step=run.step,
        reason=verdict.reason,
    )


def _count(
    session: Session, job: Job, run: Run, verdict: RunVerdict, *, most_faults: int, most_errors: int
) -> None:
    """Charge a lost run to its budget; a run that came further than its start pays once."""
    if verdict.fault is Fault.JOB:
        job.errors += 1
        if job.errors > most_errors:
            _fail(session, job, code="run_crashed", message=_gave_up(job.errors, verdict))
            return
    else:
        job.faults = 1 if _came_further(session, run) else job.faults + 1
        if job.faults > most_faults:
            _fail(session, job, code="run_lost", message=_gave_up(job.faults, verdict))
            return
    tries = job.errors + job.faults
    pause = timedelta(seconds=min(BACKOFF_CAP, 2 ** min(tries, 10) - 2))
    job.not_before = session.scalar(sa.select(sa.func.now() + pause))


def _came_further(session: Session, run: Run) -> bool:
    newest = checkpoints.newest(session, run.job_id)
    return newest is not None and newest.run_id == run.id


def _gave_up(count: int, verdict: RunVerdict) -> str:
    return (
        f"{count} runs ended early, which is more than this installation repeats; the last one: "
        f"{verdict.reason}; see `nightshift jobs logs`, then `nightshift jobs retry`"
    )


def _fail(session: Session, job: Job, *, code: str, message: str) -> None:
    session.flush()
    if job.state is JobState.RUNNING:
        transitions.fail(session, job.id, code=code, message=message)
