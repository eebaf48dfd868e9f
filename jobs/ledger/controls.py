"""What a user may do to a job: cancel, pause, resume, retry its failed rows."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs import kinds, states
from jobs.errors import Conflict, JobFolded, NotFound
from jobs.kinds import TRAINING
from jobs.ledger import (
    chunk_folds,
    dependencies,
    files,
    refused_messages,
    removals,
    transitions,
)
from jobs.lookups import chunk_folds as fold_lookup
from jobs.lookups import predicates
from jobs.states import ChunkState, JobState
from jobs.tables import Chunk, Job

_RETRY_RESET: dict[str, Any] = {
    **transitions.STEP_LEASE_REVOKED,
    **transitions.STEP_FAILURES_CLEARED,
    "error_code": None,
    "error_message": None,
    "output": None,
    "faults": 0,
    "errors": 0,
    "not_before": None,
    "run_error": None,
}
"""Fields that a retry resets."""

_CHUNK_FAILURES_CLEARED: dict[str, Any] = {
    "failures": 0,
    "failing_since": None,
    "engine_faults": 0,
    "not_before": None,
}
"""The chunk has no failures on record."""


def cancel(session: Session, job_id: str, *, project_id: str, by: str | None = None) -> None:
    """Stop at the next chunk boundary and keep what is done; harmless on a cancelled job.

    ``by``: who asked, for the event.
    """
    job = lock(session, job_id, project_id=project_id)
    if job.state in (JobState.CANCELLING, JobState.CANCELLED):
        return
    states.check_move(job.state, JobState.CANCELLING)
    transitions.move(
        session,
        job_id,
        JobState.CANCELLING,
        by=by,
        **transitions.STEP_LEASE_REVOKED | transitions.STEP_FAILURES_CLEARED,
    )


def pause(session: Session, job_id: str, *, project_id: str, by: str | None = None) -> None:
    """Begin nothing new; chunks that are under way end. Harmless on a paused job.

    ``by``: who asked, for the event; of an API key, its id.
    """
    job = lock(session, job_id, project_id=project_id)
    if job.state is JobState.PAUSED:
        return
    states.check_move(job.state, JobState.PAUSED)
    transitions.move(session, job_id, JobState.PAUSED, by=by, **transitions.STEP_LEASE_REVOKED)


def resume(session: Session, job_id: str, *, project_id: str, by: str | None = None) -> None:
    """Let a paused job go on where it was; harmless on one that is not paused but active.

    ``by``: who asked, for the event.
    """
    job = lock(session, job_id, project_id=project_id)
    if job.state is JobState.PAUSED:
        transitions.move(session, job_id, _resumed(job), by=by)
    elif job.state not in states.CLAIMABLE and job.state is not JobState.QUEUED:
        raise Conflict(
            f"only a paused job can be resumed; {job_id} is {job.state}", code="state_conflict"
        )


def retry(session: Session, job_id: str, *, project_id: str) -> int:
    """Do the failed rows again, and what was never done; the number of chunks to be done.

    Results that are there stay: each chunk with failed rows is opened again, its new part carries
    the old part's good rows over, and replaces it in one commit. A part that was found damaged is
    computed as a whole, and a damaged file written again. A job that was not begun waits for what
    it needs again. Raises ``NotFound`` for a job that is still to be planned and whose uploaded
    file was deleted, ``Conflict`` if retention has removed what it would need, and ``JobFolded`` if
    chunks that it needs are no rows: ``jobs.folding.retried`` unfolds them and comes again.
    """
    job = lock(session, job_id, project_id=project_id)
    if job.state not in states.FINAL:
        raise Conflict(
            f"{job_id} is {job.state}: retry it when it has ended, or cancel it first",
            code="state_conflict",
        )
    target = _resumed(job)
    states.check_move(job.state, target)
    if job.kind in TRAINING and job.state is JobState.SUCCEEDED:
        raise Conflict(f"{job_id} has succeeded: submit it again", code="nothing_to_retry")
    removals.lift(session, job)
    held = dependencies.holds_again(session, job, target)
    if job.planned_at is None:
        files.hold(session, kinds.parse(job.spec), project_id=project_id)
    whole = not (job.output or {}).get("damage")
    if fold_lookup.has_any(session, job_id):
        if job.state is JobState.SUCCEEDED and whole:
            _check_to_retry(session, job_id)
        raise JobFolded(job_id)
    chunk_folds.forget(session, job_id)
    _reopen_failed_chunks(session, job_id)
    refused_messages.lift_quarantine(session, job_id)
    waiting = _pending(session, job_id)
    if waiting == 0 and job.planned_at is not None and job.state is JobState.SUCCEEDED and whole:
        raise _nothing_to_retry(job_id)
    deadline = _new_deadline(job)
    transitions.move(session, job_id, target, expires_at=deadline, held=held, **_RETRY_RESET)
    return waiting


def expire(session: Session, *, limit: int = 100) -> int:
    """End every job whose deadline has passed; the number of jobs."""
    found = session.scalars(
        sa.select(Job.id)
        .where(predicates.job_expired())
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    for job_id in found:
        transitions.move(session, job_id, JobState.EXPIRED, **transitions.STEP_LEASE_REVOKED)
    return len(found)


def lock(session: Session, job_id: str, *, project_id: str) -> Job:
    """The job, locked until the transaction ends. Raises ``NotFound``."""
    job = session.scalar(
        sa.select(Job)
        .where(Job.id == job_id, Job.project_id == project_id, Job.deleted_at.is_(None))
        .with_for_update()
    )
    if job is None:
        raise NotFound(f"no job {job_id!r} in this project")
    return job


def _resumed(job: Job) -> JobState:
    begun = job.started_at is not None and not job.held  # a cancelled one was claimed at its end
    return states.resumed(planning_started=begun, planned=job.planned_at is not None)


def _new_deadline(job: Job) -> sa.ColumnElement[datetime] | None:
    """As long from now as it had at first, or a retry after the deadline would expire at once."""
    seconds = job.spec.get("deadline_seconds")
    return sa.func.now() + timedelta(seconds=seconds) if seconds else None


def _check_to_retry(session: Session, job_id: str) -> None:
    """Raise ``Conflict`` before a job is unfolded that has nothing to retry."""
    if not fold_lookup.to_retry(session, job_id):
        raise _nothing_to_retry(job_id)


def _nothing_to_retry(job_id: str) -> Conflict:
    return Conflict(
        f"{job_id} has no failed rows to retry, and no damage of its parts is known: "
        "`nightshift jobs verify` looks for it",
        code="nothing_to_retry",
    )


def _reopen_failed_chunks(session: Session, job_id: str) -> None:
    session.execute(
        sa.update(Chunk)
        .where(
            Chunk.job_id == job_id,
            Chunk.state == ChunkState.DONE,
            sa.or_(Chunk.rows_failed > 0, Chunk.damage.is_not(None)),
        )
        .values(
            state=ChunkState.PENDING,
            retried_part=sa.case((Chunk.damage.is_(None), Chunk.part_key)),
            damage=None,
            part_key=None,
            rows_failed=None,
            errors=None,
            done_at=None,
            condemned=False,
            crashes=0,
            load_crashes=0,
            **_CHUNK_FAILURES_CLEARED,
        )
    )
    session.execute(
        sa.update(Chunk)
        .where(Chunk.job_id == job_id, Chunk.state == ChunkState.PENDING)
        .values(dispatched_at=None, **_CHUNK_FAILURES_CLEARED)
    )


def _pending(session: Session, job_id: str) -> int:
    live = (ChunkState.PENDING, ChunkState.LEASED)
    return (
        session.scalar(
            sa.select(sa.func.count())
            .select_from(Chunk)
            .where(Chunk.job_id == job_id, Chunk.state.in_(live))
        )
        or 0
    )
