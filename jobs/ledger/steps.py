"""The lease on a job's own steps: planning at its beginning, finalizing at its end."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.errors import LeaseLost
from jobs.ledger import events, moves
from jobs.states import JobState
from jobs.tables import Job

MAX_CRASHES = 5
"""Deaths, or errors of our own, in one step after which the job fails instead of killing on."""


class Step(StrEnum):
    """What a planner does for a job."""

    PLAN = "plan"
    FINALIZE = "finalize"


STATES = {
    Step.PLAN: (JobState.QUEUED, JobState.PLANNING),
    Step.FINALIZE: (JobState.FINALIZING, JobState.CANCELLING),
}


@dataclass(frozen=True)
class StepLease:
    """The right to do one step of one job while nobody holds a higher fence."""

    job_id: str
    fence: int
    state: JobState


def claim(
    session: Session, job_id: str, *, step: Step, owner: str, lease: timedelta
) -> StepLease | None:
    """Take the step if nobody holds it. A lease that ran out counts as a death of its owner.

    So does one in the owner's own name: the answer to its claim was lost, or it is a dead namesake.
    """
    died = Job.step_lease_expires_at.is_not(None)
    row = session.execute(
        sa.update(Job)
        .where(
            Job.id == job_id,
            Job.state.in_(STATES[step]),
            sa.or_(~died, Job.step_lease_expires_at < sa.func.now(), Job.step_owner == owner),
        )
        .values(
            step_fence=Job.step_fence + 1,
            step_owner=owner,
            step_lease_expires_at=sa.func.now() + lease,
            step_dispatched_at=None,
            step_crashes=Job.step_crashes + sa.case((died, 1), else_=0),
            started_at=sa.func.coalesce(Job.started_at, sa.func.now()),
        )
        .returning(Job.step_fence, Job.state, Job.step_crashes, Job.step_error)
    ).one_or_none()
    if row is None:
        return None
    if row.step_crashes >= MAX_CRASHES and row.state is not JobState.CANCELLING:
        _give_up(session, job_id, step=step, crashes=row.step_crashes, error=row.step_error)
        return None
    if row.state is JobState.QUEUED:
        moves.move(session, job_id, JobState.PLANNING)
        return StepLease(job_id, row.step_fence, JobState.PLANNING)
    return StepLease(job_id, row.step_fence, row.state)


def renew(session: Session, held: StepLease, *, lease: timedelta) -> bool:
    """Hold on to the step; ``False`` when it is no longer ours, or the job has moved on."""
    return _update(session, held, step_lease_expires_at=sa.func.now() + lease)


def confirm(session: Session, held: StepLease) -> None:
    """Lock the job's row for this transaction. Raises ``LeaseLost`` unless the step is ours."""
    found = session.scalar(
        sa.select(Job.id)
        .where(Job.id == held.job_id, Job.step_fence == held.fence, Job.state == held.state)
        .with_for_update()
    )
    if found is None:
        raise LeaseLost(f"{held.job_id}: this step is no longer ours (fence {held.fence})")


def release(
    session: Session, held: StepLease, *, error: str | None = None, crashed: bool = False
) -> None:
    """Give the step back, if it is still ours; the job may have moved on.

    After an ``error`` (a full disk, a storage that refuses) it counts as dispatched at this moment,
    so that it is tried again after the redispatch time and not at once. ``crashed`` says that the
    fault is not of the surroundings: it will not pass by itself, and counts like a death.
    """
    values: dict[str, Any] = {"step_owner": None, "step_lease_expires_at": None}
    if error is not None:
        values |= {"step_error": error[:2000], "step_dispatched_at": sa.func.now()}
    if crashed:
        values["step_crashes"] = Job.step_crashes + 1
    session.execute(
        sa.update(Job).where(Job.id == held.job_id, Job.step_fence == held.fence).values(**values)
    )
    events.wake_control(session)


def _update(session: Session, held: StepLease, **values: Any) -> bool:
    found = session.scalar(
        sa.update(Job)
        .where(Job.id == held.job_id, Job.step_fence == held.fence, Job.state == held.state)
        .values(**values)
        .returning(Job.id)
    )
    return found is not None


def _give_up(session: Session, job_id: str, *, step: Step, crashes: int, error: str | None) -> None:
    last = f"; it said: {error}" if error else ""
    moves.fail(
        session,
        job_id,
        code=f"{step}_crashed",
        message=f"the process that should {step} this job failed {crashes} times{last}; "
        "see the planner's log, then `nightshift jobs retry`",
    )
