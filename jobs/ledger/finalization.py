"""The end of a job: its outputs are written and its counts add up, or it fails loudly."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.ledger import findings, step_leases, transitions
from jobs.ledger.step_leases import StepLease
from jobs.states import ChunkState, JobState
from jobs.tables import Chunk, Job

_STEP_CLEARED: dict[str, Any] = {
    "step_owner": None,
    "step_lease_expires_at": None,
    **transitions.STEP_FAILURES_CLEARED,
}
"""The step has no lease and no failures on record."""


def done_rows(session: Session, job_id: str) -> int:
    """Rows in committed parts."""
    total = session.scalar(
        sa.select(sa.func.sum(Chunk.rows)).where(
            Chunk.job_id == job_id, Chunk.state == ChunkState.DONE
        )
    )
    return int(total or 0)


def finish(session: Session, lease: StepLease, *, output: dict[str, Any]) -> bool:
    """End the job with its outputs; ``False`` if a chunk was committed since they were written."""
    step_leases.confirm(session, lease)
    if done_rows(session, lease.job_id) != output["rows"]:
        return False
    target = JobState.CANCELLED if lease.state is JobState.CANCELLING else JobState.SUCCEEDED
    findings.record(session, session.get_one(Job, lease.job_id))
    transitions.move(session, lease.job_id, target, output=output, **_STEP_CLEARED)
    return True


def fail_if_too_many_rows_failed(session: Session, lease: StepLease) -> bool:
    """End the job as failed if more rows failed than ``max_failed`` allows; ``True`` if it did.

    A job that is being cancelled is not failed for this.
    """
    step_leases.confirm(session, lease)
    return lease.state is JobState.FINALIZING and findings.fail_if_too_many_rows_failed(
        session, lease.job_id
    )


def fail_count_mismatch(session: Session, lease: StepLease, *, message: str) -> None:
    """End the job as failed because its counts do not add up."""
    step_leases.confirm(session, lease)
    transitions.fail(session, lease.job_id, code="counts_do_not_add_up", message=message)
