"""The end of a job: its outputs are written and its counts add up, or it fails loudly."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.ledger import findings, step_leases, transitions
from jobs.ledger.step_leases import StepLease
from jobs.states import ChunkState, JobState
from jobs.tables import Chunk, Job

_RELEASED: dict[str, Any] = {
    "step_owner": None,
    "step_lease_expires_at": None,
    **transitions.STEP_WELL,
}


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
    transitions.move(session, lease.job_id, target, output=output, **_RELEASED)
    return True


def end_failed(session: Session, lease: StepLease) -> bool:
    """End the job if more of its rows failed than may; ``True`` if it did.

    One that is being cancelled ends as it is, whatever failed.
    """
    step_leases.confirm(session, lease)
    return lease.state is JobState.FINALIZING and findings.end(session, lease.job_id)


def mark_file_damaged(session: Session, job_id: str, *, key: str, reason: str) -> None:
    """Write down that the single file cannot be read: a retry of the job writes it again."""
    job = session.scalar(sa.select(Job).where(Job.id == job_id).with_for_update())
    if job is not None and job.output is not None and job.output.get("file") == key:
        job.output = {**job.output, "damage": reason[:2000]}


def fail(session: Session, lease: StepLease, *, message: str) -> None:
    """End the job because its counts do not add up."""
    step_leases.confirm(session, lease)
    transitions.fail(session, lease.job_id, code="counts_do_not_add_up", message=message)
