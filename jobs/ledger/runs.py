"""Runs and their ranks: form, claim, renew, end. All moves of a run and a rank stand here.

A run's fence is its number within the job. A rank's lease is good as long as its run lives and its
own row is leased; nothing that a rank of an older run holds changes anything.

Rows are locked in one order everywhere: run, host, rank, job; or job and host for a new run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from jobs import ids, specs
from jobs.decisions.judging import Fault, Outcome, Verdict
from jobs.errors import LeaseLost
from jobs.ledger import events, moves
from jobs.queries import checkpoints
from jobs.states import LIVE_RUN, JobState, RankState, RunState
from jobs.tables import Host, Job, Rank, Run

READY = "ready"
"""The phase of a rank that has all that it needs and waits for the others."""

BACKOFF_CAP = 300
PREPARING = "preparing"


@dataclass(frozen=True)
class RankLease:
    """The right to work as one rank of one run, and what is needed to begin."""

    run_id: str
    job_id: str
    project_id: str
    fence: int  # the run's number
    rank: int
    machines: int
    address: str  # of rank 0's host
    spec: specs.AnyTraining
    dataset: dict[str, Any]
    model_pinned: str | None
    checkpoint_id: int | None


@dataclass(frozen=True)
class Orders:
    """What a rank is told when it renews its lease."""

    stop: str | None  # `checkpoint` or `now`
    stop_reason: str | None
    port: int | None  # of the rendezvous; null: rank 0 has not chosen one yet
    all_ready: bool  # every rank of the gang has what it needs


def form(session: Session, job_id: str, hosts: Sequence[str]) -> str | None:
    """Reserve the hosts for a new run of the job, all or none; the run's id.

    ``None`` if the job does not want a gang any more, or one of the hosts is not to be had.
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


def mark_dispatched(session: Session, run_id: str, rank: int) -> None:
    """Mark the message to a rank's host as sent."""
    session.execute(
        sa.update(Rank)
        .where(Rank.run_id == run_id, Rank.rank == rank)
        .values(dispatched_at=sa.func.now())
    )


def claim(
    session: Session, run_id: str, rank: int, *, incarnation: str, lease: timedelta
) -> RankLease | None:
    """The rank's lease, or ``None`` if it is not to be had: claimed, ended, or of another agent."""
    # Of two that claim at once each must see the other: the second waits for the first here.
    session.execute(sa.select(Run.id).where(Run.id == run_id).with_for_update())
    row = session.execute(
        sa.update(Rank)
        .where(
            Rank.run_id == run_id,
            Rank.rank == rank,
            Rank.state == RankState.PENDING,
            Rank.incarnation == incarnation,
            Run.id == Rank.run_id,
            Run.state == RunState.FORMING,
            Run.stop.is_(None),
            Job.id == Run.job_id,
        )
        .values(
            state=RankState.LEASED,
            claimed_at=sa.func.now(),
            lease_expires_at=sa.func.now() + lease,
            phase=PREPARING,
            progress_at=sa.func.now(),
        )
        .returning(
            *(Run.id, Run.job_id, Job.project_id, Run.number, Rank.rank, Run.machines),
            *(Run.address, Job.spec, Job.dataset, Job.model_pinned, Run.checkpoint_id),
        )
    ).one_or_none()
    if row is None:
        return None
    _begin_when_complete(session, run_id)
    return RankLease(
        run_id=row.id,
        job_id=row.job_id,
        project_id=row.project_id,
        fence=row.number,
        rank=row.rank,
        machines=row.machines,
        address=row.address,
        spec=specs.training(row.spec),
        dataset=row.dataset or {},
        model_pinned=row.model_pinned,
        checkpoint_id=row.checkpoint_id,
    )


def renew(
    session: Session, held: RankLease, *, lease: timedelta, phase: str, progress: bool
) -> Orders | None:
    """Hold on to the rank, and say what it does; ``None`` when it is no longer ours.

    A lease that ran out but that nobody has judged is still ours: the row decides, not the clock.
    """
    values: dict[str, Any] = {"lease_expires_at": sa.func.now() + lease, "phase": phase}
    if progress:
        values["progress_at"] = sa.func.now()
    run = session.execute(
        sa.update(Rank)
        .where(*_ours(held), Run.id == Rank.run_id)
        .values(**values)
        .returning(Run.stop, Run.stop_reason, Run.port)
    ).one_or_none()
    if run is None:
        return None
    return Orders(
        stop=run.stop,
        stop_reason=run.stop_reason,
        port=run.port,
        all_ready=not _unready(session, held.run_id),
    )


def choose_port(session: Session, held: RankLease, port: int) -> None:
    """Say where the gang meets; rank 0's to say, once per run."""
    confirm(session, held)
    session.execute(sa.update(Run).where(Run.id == held.run_id).values(port=port))


def tell_progress(session: Session, held: RankLease, *, step: int, steps_total: int | None) -> None:
    """Record how far the run is. Raises ``LeaseLost``."""
    confirm(session, held)
    session.execute(
        sa.update(Run)
        .where(Run.id == held.run_id)
        .values(step=step, steps_total=sa.func.coalesce(steps_total, Run.steps_total))
    )


def confirm(session: Session, held: RankLease) -> None:
    """Keep the run's row as it is for this transaction. Raises ``LeaseLost`` unless it is ours."""
    found = session.scalar(
        sa.select(Run.id)
        .join(Rank, Rank.run_id == Run.id)
        .where(*_ours(held), Run.state.in_(LIVE_RUN))
        .with_for_update(of=Run)
    )
    if found is None:
        raise LeaseLost(f"rank {held.rank} of run {held.fence} of {held.job_id} is over")


def end_rank(
    session: Session,
    held: RankLease,
    outcome: Outcome,
    *,
    exit_code: int | None = None,
    error_code: str | None = None,
    error: str | None = None,
) -> bool:
    """Say how the rank ended; ``False`` if that was said already, or judged."""
    ended = session.scalar(
        sa.update(Rank)
        .where(*_ours(held))
        .values(
            **_ended(outcome),
            exit_code=exit_code,
            error_code=error_code,
            error=None if error is None else _storable(error[-8000:]),
        )
        .returning(Rank.rank)
    )
    events.wake_control(session)
    return ended is not None


def end_overdue(session: Session, run_id: str, rank: int, outcome: Outcome) -> bool:
    """End a rank that says nothing; ``False`` if it has renewed or ended since it was looked at."""
    state = RankState.PENDING if outcome is Outcome.ABSENT else RankState.LEASED
    still = sa.true() if outcome is Outcome.ABSENT else Rank.lease_expires_at < sa.func.now()
    ended = session.scalar(
        sa.update(Rank)
        .where(Rank.run_id == run_id, Rank.rank == rank, Rank.state == state, still)
        .values(**_ended(outcome))
        .returning(Rank.rank)
    )
    return ended is not None


def end_unclaimed(session: Session, run_id: str) -> None:
    """Ranks that have not begun need not, when their run is to end."""
    session.execute(
        sa.update(Rank)
        .where(Rank.run_id == run_id, Rank.state == RankState.PENDING)
        .values(**_ended(Outcome.ENDED))
    )


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
    end_unclaimed(session, run_id)
    events.record(
        session, job_id=asked.job_id, type="run_stops", run=asked.number, how=how, reason=reason
    )
    return True


def conclude(
    session: Session, run_id: str, verdict: Verdict, *, most_faults: int, most_errors: int
) -> bool:
    """End a live run that did not succeed; its hosts are free, its job waits anew or fails."""
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


def succeed(session: Session, held: RankLease, *, output: dict[str, Any]) -> None:
    """End the run and its job well. Raises ``LeaseLost`` if that is not ours to do.

    Rank 0 says so, with the result that it has committed in the same transaction.
    """
    confirm(session, held)
    _finish(session, session.get_one(Run, held.run_id), Verdict(RunState.SUCCEEDED))
    session.execute(
        sa.update(Rank)
        .where(Rank.run_id == held.run_id, Rank.state != RankState.ENDED)
        .values(**_ended(Outcome.DONE))
    )
    if not moves.move(
        session,
        held.job_id,
        JobState.SUCCEEDED,
        only_from=(JobState.RUNNING,),
        output=output,
        run_error=None,
    ):
        raise LeaseLost(f"{held.job_id} is no longer running; the result is thrown away")


def end_cancelled(session: Session, *, kinds: Sequence[str]) -> int:
    """Jobs being cancelled whose ranks are gone have ended; the number of them."""
    live = sa.select(Run.id).where(Run.job_id == Job.id, Run.state.in_(LIVE_RUN))
    ready = session.scalars(
        sa.select(Job.id).where(
            Job.state == JobState.CANCELLING, Job.kind.in_(kinds), ~live.exists()
        )
    ).all()
    return sum(moves.move(session, job_id, JobState.CANCELLED) for job_id in ready)


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


def _begin_when_complete(session: Session, run_id: str) -> None:
    pending = sa.select(Rank.rank).where(Rank.run_id == run_id, Rank.state == RankState.PENDING)
    begun = session.execute(
        sa.update(Run)
        .where(Run.id == run_id, Run.state == RunState.FORMING, ~pending.exists())
        .values(state=RunState.RUNNING, started_at=sa.func.now())
        .returning(Run.job_id, Run.number)
    ).one_or_none()
    if begun is not None:
        events.record(
            session, job_id=begun.job_id, type="run", run=begun.number, state=RunState.RUNNING
        )


def _unready(session: Session, run_id: str) -> bool:
    waiting = sa.select(Rank.rank).where(
        Rank.run_id == run_id,
        sa.or_(Rank.phase.is_(None), Rank.phase == PREPARING),
        Rank.state != RankState.ENDED,
    )
    return session.scalar(waiting.limit(1)) is not None


def _ours(held: RankLease) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        Rank.run_id == held.run_id,
        Rank.rank == held.rank,
        Rank.state == RankState.LEASED,
    )


def _storable(text: str) -> str:
    """The text without what Postgres refuses: NUL, and halves of surrogate pairs."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def _ended(outcome: Outcome) -> dict[str, Any]:
    return {
        "state": RankState.ENDED,
        "outcome": outcome,
        "lease_expires_at": None,
        "ended_at": sa.func.now(),
    }


def _finish(session: Session, run: Run, verdict: Verdict) -> None:
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
    session: Session, job: Job, run: Run, verdict: Verdict, *, most_faults: int, most_errors: int
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


def _gave_up(count: int, verdict: Verdict) -> str:
    return (
        f"{count} runs ended early, which is more than this installation repeats; the last one: "
        f"{verdict.reason}; see `nightshift jobs logs`, then `nightshift jobs retry`"
    )


def _fail(session: Session, job: Job, *, code: str, message: str) -> None:
    session.flush()
    if job.state is JobState.RUNNING:
        moves.fail(session, job.id, code=code, message=message)
