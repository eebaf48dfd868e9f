"""The lease on a job's own steps: planning at its beginning, finalizing at its end."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.decisions import faults
from jobs.decisions.faults import Blame, Diagnosis, RetryLimits
from jobs.errors import LeaseLost
from jobs.ledger import events, transitions
from jobs.lookups import clock, predicates
from jobs.states import STEP_STATES, JobState, JobStep
from jobs.tables import Job, Json

MAX_CRASHES = 5
"""Deaths in one step after which the job fails instead of killing on."""


@dataclass(frozen=True)
class StepLease:
    """The right to do one step of a job, until a higher fence exists, with what the step needs."""

    job_id: str
    fence: int
    state: JobState
    kind: str
    project_id: str
    spec: Json  # as stored: one that cannot be parsed is a fault of the step
    model_pinned: str | None  # what a registry reference meant at submission; null: it is none
    plan: Plan


@dataclass(frozen=True)
class Plan:
    """What the planner has found out about a job; null where it has not got there yet."""

    rows_total: int | None
    corpus_fingerprint: str | None
    model_digest: str | None
    embedding_width: int | None  # of an embed job


def claim(
    session: Session, job_id: str, *, step: JobStep, owner: str, duration: timedelta
) -> StepLease | None:
    """Claim the step if it is free and due. A lease that expired counts as a crash.

    So does one of the same owner: the answer to its claim was lost, or an earlier process of that
    name died.
    """
    died = Job.step_lease_expires_at.is_not(None)
    row = session.execute(
        sa.update(Job)
        .where(
            Job.id == job_id,
            Job.state.in_(STEP_STATES[step]),
            sa.or_(~died, Job.step_lease_expires_at < sa.func.now(), Job.step_owner == owner),
            predicates.step_of_kind(step),
            predicates.step_lets_go(step),
            predicates.step_due(),
        )
        .values(
            step_fence=Job.step_fence + 1,
            step_owner=owner,
            step_lease_expires_at=sa.func.now() + duration,
            step_dispatched_at=None,
            step_crashes=Job.step_crashes + sa.case((died, 1), else_=0),
            started_at=sa.func.coalesce(Job.started_at, sa.func.now()),
        )
        .returning(
            *(Job.step_fence, Job.state, Job.step_crashes, Job.step_error),
            *(Job.kind, Job.project_id, Job.spec, Job.model_pinned),
            *(Job.rows_total, Job.corpus_fingerprint, Job.model_digest, Job.embedding_width),
        )
    ).one_or_none()
    if row is None:
        return None
    if row.step_crashes >= MAX_CRASHES:
        message = _crash_message(step, crashes=row.step_crashes, error=row.step_error)
        _end(session, job_id, row.state, code=f"{step}_crashed", message=message)
        return None
    if row.state is JobState.QUEUED:
        transitions.move(session, job_id, JobState.PLANNING)
    return StepLease(
        job_id=job_id,
        fence=row.step_fence,
        state=JobState.PLANNING if row.state is JobState.QUEUED else row.state,
        kind=row.kind,
        project_id=row.project_id,
        spec=row.spec,
        model_pinned=row.model_pinned,
        plan=Plan(
            rows_total=row.rows_total,
            corpus_fingerprint=row.corpus_fingerprint,
            model_digest=row.model_digest,
            embedding_width=row.embedding_width,
        ),
    )


def renew(session: Session, lease: StepLease, *, duration: timedelta) -> bool:
    """Renew the lease; ``False`` when it is lost, or the job has moved on."""
    return _update(session, lease, step_lease_expires_at=sa.func.now() + duration)


def confirm(session: Session, lease: StepLease) -> None:
    """Lock the job's row for this transaction. Raises ``LeaseLost`` unless the step is ours."""
    found = session.scalar(
        sa.select(Job.id)
        .where(Job.id == lease.job_id, Job.step_fence == lease.fence, Job.state == lease.state)
        .with_for_update()
    )
    if found is None:
        raise LeaseLost(f"{lease.job_id}: this step is no longer ours (fence {lease.fence})")


def release(session: Session, lease: StepLease) -> None:
    """Release the lease, if it is still ours; the job may have moved on."""
    _requeue(session, lease)
    events.wake_control(session)


def release_after_fault(
    session: Session, lease: StepLease, diagnosis: Diagnosis, *, limits: RetryLimits
) -> bool:
    """Release the lease after a fault, and let the step back off; ``True``: the job ended.

    A job that is being cancelled ends as cancelled, without its outputs.
    """
    job = session.scalar(
        sa.select(Job)
        .where(Job.id == lease.job_id, Job.step_fence == lease.fence)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    if job is None:
        return False
    if job.state is not lease.state or diagnosis.blame is Blame.LEASE:
        release(session, lease)
        return False
    now = clock.now(session)
    since = job.step_failing_since or now
    passes = diagnosis.blame is Blame.TRANSIENT
    tries = (job.step_failures if passes else job.step_crashes) + 1
    span = now - since
    if faults.should_fail_job(diagnosis.blame, tries=tries, failing_for=span, limits=limits):
        message = faults.failure_message(diagnosis, tries=tries, failing_for=span)
        _end(session, lease.job_id, job.state, code=diagnosis.code, message=message)
        return True
    counted: dict[str, Any] = {"step_crashes": tries}
    if passes:
        counted = {"step_failures": tries, "step_failing_since": since}
    _requeue(
        session,
        lease,
        step_error=diagnosis.message,
        step_dispatched_at=None,
        step_not_before=now + faults.backoff(tries),
        **counted,
    )
    events.wake_control(session)
    return False


def _requeue(session: Session, lease: StepLease, **values: Any) -> None:
    session.execute(
        sa.update(Job)
        .where(Job.id == lease.job_id, Job.step_fence == lease.fence)
        .values(step_owner=None, step_lease_expires_at=None, **values)
    )


def _update(session: Session, lease: StepLease, **values: Any) -> bool:
    found = session.scalar(
        sa.update(Job)
        .where(Job.id == lease.job_id, Job.step_fence == lease.fence, Job.state == lease.state)
        .values(**values)
        .returning(Job.id)
    )
    return found is not None


def _end(session: Session, job_id: str, state: JobState, *, code: str, message: str) -> None:
    if state is JobState.CANCELLING:
        ended = (
            transitions.STEP_LEASE_REVOKED
            | transitions.STEP_FAILURES_CLEARED
            | {"step_error": message}
        )
        transitions.move(session, job_id, JobState.CANCELLED, **ended)
        return
    transitions.fail(session, job_id, code=code, message=message)


def _crash_message(step: JobStep, *, crashes: int, error: str | None) -> str:
    last = f"; it said: {error}" if error else ""
    return (
        f"the process that should {step} this job died {crashes} times{last}; "
        "see the planner's log, then `nightshift jobs retry`"
    )
