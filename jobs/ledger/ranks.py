"""Ranks of runs: claimed, renewed, ended, one host's part in a run at a time.

A rank's lease is good as long as its run lives and its own row is leased; nothing that a rank of an
older run holds changes anything. The order of locks is that of ``jobs.ledger.runs``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs import kinds
from jobs.decisions.run_verdict import RankOutcome
from jobs.errors import LeaseLost
from jobs.ledger import events
from jobs.states import LIVE_RUN, RankState, RunState
from jobs.tables import Job, Rank, Run

READY = "ready"
"""The phase of a rank that has all that it needs and waits for the others."""

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
    spec: kinds.AnyTraining
    dataset: dict[str, Any]
    model_pinned: str | None
    checkpoint_id: int | None


@dataclass(frozen=True)
class Orders:
    """The answer to a rank that renews its lease."""

    stop: str | None  # `checkpoint` or `now`
    stop_reason: str | None
    port: int | None  # of the rendezvous; null: rank 0 has not chosen one yet
    all_ready: bool  # every rank of the gang is alive and has what it needs


def mark_dispatched(session: Session, run_id: str, rank: int) -> None:
    """Mark the message to a rank's host as sent."""
    session.execute(
        sa.update(Rank)
        .where(Rank.run_id == run_id, Rank.rank == rank)
        .values(dispatched_at=sa.func.now())
    )


def claim(
    session: Session, run_id: str, rank: int, *, incarnation: str, duration: timedelta
) -> RankLease | None:
    """The rank's lease; ``None``: it is claimed or has ended, or belongs to another agent."""
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
            lease_expires_at=sa.func.now() + duration,
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
        spec=kinds.training(row.spec),
        dataset=row.dataset or {},
        model_pinned=row.model_pinned,
        checkpoint_id=row.checkpoint_id,
    )


def renew(
    session: Session, lease: RankLease, *, duration: timedelta, phase: str, progress: bool
) -> Orders | None:
    """Renew the lease and record the phase; ``None`` when the lease is lost.

    A lease that expired but was not ended is still ours: the row decides, not the clock.
    """
    values: dict[str, Any] = {"lease_expires_at": sa.func.now() + duration, "phase": phase}
    if progress:
        values["progress_at"] = sa.func.now()
    run = session.execute(
        sa.update(Rank)
        .where(*ours(lease), Run.id == Rank.run_id)
        .values(**values)
        .returning(Run.stop, Run.stop_reason, Run.port)
    ).one_or_none()
    if run is None:
        return None
    return Orders(
        stop=run.stop,
        stop_reason=run.stop_reason,
        port=run.port,
        all_ready=not _unready(session, lease.run_id),
    )


def choose_port(session: Session, lease: RankLease, port: int) -> None:
    """Record the port of the rendezvous; rank 0 does so, once per run."""
    confirm(session, lease)
    session.execute(sa.update(Run).where(Run.id == lease.run_id).values(port=port))


@dataclass(frozen=True)
class RunProgress:
    """How far a run is, as its rank 0 reports it; ``None``: nothing new about that."""

    step: int | None = None
    steps_total: int | None = None
    evaluated: tuple[int, int] | None = None  # rows done and in all of the evaluation under way


def record_progress(session: Session, lease: RankLease, progress: RunProgress) -> None:
    """Record how far the run is. Raises ``LeaseLost``."""
    confirm(session, lease)
    values: dict[str, Any] = {}
    if progress.step is not None:
        values["step"] = sa.func.greatest(Run.step, progress.step)
        values["steps_total"] = sa.func.coalesce(progress.steps_total, Run.steps_total)
    if progress.evaluated is not None:
        values |= _evaluated(*progress.evaluated)
    if values:
        session.execute(sa.update(Run).where(Run.id == lease.run_id).values(**values))


def _evaluated(rows: int, total: int) -> dict[str, Any]:
    """An evaluation that counts fewer rows than were recorded, or others, is a new one."""
    goes_on = sa.and_(Run.evaluated_rows <= rows, Run.evaluation_rows == total)
    return {
        "evaluated_rows": rows,
        "evaluation_rows": total,
        "evaluation_began_at": sa.case((goes_on, Run.evaluation_began_at), else_=sa.func.now()),
    }


def confirm(session: Session, lease: RankLease) -> None:
    """Keep the run's row as it is for this transaction. Raises ``LeaseLost`` unless it is ours."""
    found = session.scalar(
        sa.select(Run.id)
        .join(Rank, Rank.run_id == Run.id)
        .where(*ours(lease), Run.state.in_(LIVE_RUN))
        .with_for_update(of=Run)
    )
    if found is None:
        raise LeaseLost(f"rank {lease.rank} of run {lease.fence} of {lease.job_id} is over")


def end_rank(
    session: Session,
    lease: RankLease,
    outcome: RankOutcome,
    *,
    exit_code: int | None = None,
    error_code: str | None = None,
    error: str | None = None,
) -> bool:
    """Record how the rank ended; ``False`` if it had ended already."""
    ended = session.scalar(
        sa.update(Rank)
        .where(*ours(lease))
        .values(
            **ending(outcome),
            exit_code=exit_code,
            error_code=error_code,
            error=None if error is None else _storable(error[-8000:]),
        )
        .returning(Rank.rank)
    )
    events.wake_control(session)
    return ended is not None


def end_overdue(session: Session, run_id: str, rank: int, outcome: RankOutcome) -> bool:
    """End a silent rank; ``False`` if it has renewed or ended since it was read."""
    state = RankState.PENDING if outcome is RankOutcome.ABSENT else RankState.LEASED
    still = sa.true() if outcome is RankOutcome.ABSENT else Rank.lease_expires_at < sa.func.now()
    ended = session.scalar(
        sa.update(Rank)
        .where(Rank.run_id == run_id, Rank.rank == rank, Rank.state == state, still)
        .values(**ending(outcome))
        .returning(Rank.rank)
    )
    return ended is not None


def end_unclaimed(session: Session, run_id: str) -> None:
    """Ranks that have not begun need not, when their run is to end."""
    session.execute(
        sa.update(Rank)
        .where(Rank.run_id == run_id, Rank.state == RankState.PENDING)
        .values(**ending(RankOutcome.ABORTED))
    )


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
        sa.or_(Rank.phase.is_(None), Rank.phase == PREPARING, Rank.state == RankState.ENDED),
    )
    return session.scalar(waiting.limit(1)) is not None


def ours(lease: RankLease) -> tuple[sa.ColumnElement[bool], ...]:
    """That the rank is still leased to the holder."""
    return (
        Rank.run_id == lease.run_id,
        Rank.rank == lease.rank,
        Rank.state == RankState.LEASED,
    )


def _storable(text: str) -> str:
    """The text without what Postgres refuses: NUL, and halves of surrogate pairs."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def ending(outcome: RankOutcome) -> dict[str, Any]:
    """The columns of a rank that ends with this outcome."""
    return {
        "state": RankState.ENDED,
        "outcome": outcome,
        "lease_expires_at": None,
        "ended_at": sa.func.now(),
    }
