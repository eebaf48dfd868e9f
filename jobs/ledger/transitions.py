"""Moving a job from state to state, guarded, with its event."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.ledger import events, fire_states, webhook_outbox
from jobs.states import FINAL, JobState, sources
from jobs.tables import Job

AT_ONCE = sa.func.to_timestamp(0)
"""Of ``retention_at``: retention looks at the job as soon as it has ended."""

STEP_LEASE_REVOKED: dict[str, Any] = {
    "step_fence": Job.step_fence + 1,
    "step_owner": None,
    "step_lease_expires_at": None,
    "step_dispatched_at": None,
    "step_not_before": None,
}
"""The lease on the job's step is void, even if the job comes back to the same state."""

STEP_FAILURES_CLEARED: dict[str, Any] = {
    "step_crashes": 0,
    "step_error": None,
    "step_failures": 0,
    "step_failing_since": None,
    "step_not_before": None,
}
"""The step has no failures or crashes on record."""


def move(
    session: Session,
    job_id: str,
    target: JobState,
    *,
    only_from: Collection[JobState] | None = None,
    by: str | None = None,
    **values: Any,
) -> bool:
    """Move the job if the table of states allows it; ``False`` when it was not where it must be.

    ``by``: who asked for it, for the event.
    """
    allowed = sources(target) if only_from is None else sources(target) & frozenset(only_from)
    finished = sa.func.now() if target in FINAL else None
    moved = session.execute(
        sa.update(Job)
        .where(Job.id == job_id, Job.state.in_(allowed))
        .values(
            **{
                "state": target,
                "finished_at": finished,
                "retention_at": AT_ONCE,
                "skipped": None,
                **values,
            }
        )
        .returning(Job.fire_id, Job.project_id, Job.kind, Job.error_code, Job.group_id)
    ).one_or_none()
    if moved is None:
        return False
    if moved.fire_id is not None:
        fire_states.follow_job(session, moved.fire_id, has_ended=target in FINAL)
    asked = {"by": by} if by else {}
    events.record(session, job_id=job_id, type="state", state=target, **asked)
    if target in FINAL:
        webhook_outbox.job_ended(
            session,
            job_id=job_id,
            project_id=moved.project_id,
            kind=moved.kind,
            state=target,
            error_code=moved.error_code,
            group_id=moved.group_id,
        )
    events.wake_control(session)
    return True


def skip(session: Session, job_id: str, *, reason: str) -> bool:
    """End the job without a result, as if cancelled: there is nothing for it to do."""
    events.record(session, job_id=job_id, type="no_rows", reason=reason)
    move(session, job_id, JobState.CANCELLING)
    return move(
        session,
        job_id,
        JobState.CANCELLED,
        **STEP_LEASE_REVOKED | STEP_FAILURES_CLEARED | {"step_error": reason, "skipped": reason},
    )


def fail(session: Session, job_id: str, *, code: str, message: str) -> bool:
    """End the job with an error that says why; what was done is kept."""
    return move(
        session,
        job_id,
        JobState.FAILED,
        error_code=code,
        error_message=message,
        **STEP_LEASE_REVOKED,
    )
