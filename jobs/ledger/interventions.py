"""What an operator may do to work that is under way: release it at once, or stop it (Flower).

A chunk or step that is released counts neither a failure nor a crash, and control sends it again.
What its process still writes is refused (promise P3). The history of the job says who asked.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.errors import Conflict, NotFound
from jobs.ledger import controls, events, orders, runs, transitions
from jobs.lookups import holders
from jobs.orders import GRACE
from jobs.states import LIVE_RUN, STEP_STATES, ChunkState, JobStep
from jobs.tables import Chunk, Job, Run


def release_chunk(
    session: Session, job_id: str, *, first_row: int, worker: str, task_id: str, by: str
) -> None:
    """Release the chunk that begins with this row, if this worker holds it; else ``Conflict``.

    Its process stops at its next heartbeat, and is ended if it has not done so after ``GRACE``.
    """
    chunk = session.scalar(
        sa.select(Chunk)
        .where(
            Chunk.job_id == job_id,
            Chunk.first_row == first_row,
            Chunk.state == ChunkState.LEASED,
            holders.worker(Chunk.owner) == worker,
        )
        .with_for_update()
    )
    if chunk is None:
        raise Conflict(
            f"{worker} does not hold the chunk of {job_id} that begins with row {first_row:,}: "
            "it is done, or was released",
            code="not_held",
        )
    lease = (chunk.id, chunk.fence)
    chunk.state = ChunkState.PENDING
    chunk.owner = chunk.lease_expires_at = chunk.dispatched_at = None
    chunk.fraction_done = chunk.reported_at = None
    session.flush()
    last = chunk.first_row + chunk.rows - 1
    _record(session, job_id, "release the chunk", worker=worker, by=by, rows=[first_row, last])
    orders.end_process(session, worker, task_id=task_id, by=by, after=GRACE, lease=lease)
    events.wake_control(session)


def release_step(
    session: Session, job_id: str, *, step: JobStep, worker: str, task_id: str, by: str
) -> None:
    """The same of a job that this planner plans or finalizes."""
    released = session.scalar(
        sa.update(Job)
        .where(
            Job.id == job_id,
            Job.state.in_(STEP_STATES[step]),
            holders.worker(Job.step_owner) == worker,
        )
        .values(**transitions.STEP_LEASE_REVOKED)
        .returning(Job.id)
    )
    if released is None:
        raise Conflict(
            f"{worker} does not {step} {job_id}: it has ended that, or it was released",
            code="not_held",
        )
    _record(session, job_id, f"release the step ({step})", worker=worker, by=by)
    orders.end_process(session, worker, task_id=task_id, by=by, after=GRACE)
    events.wake_control(session)


def stop_run(session: Session, job_id: str, *, number: int, by: str) -> None:
    """Stop a run behind a checkpoint; the job goes on from it with another run."""
    run_id = session.scalar(
        sa.select(Run.id).where(Run.job_id == job_id, Run.number == number, Run.state.in_(LIVE_RUN))
    )
    asked = run_id is not None and runs.request_stop(
        session, run_id, how="checkpoint", reason=f"{by} stopped this run in Flower"
    )
    if not asked:
        raise Conflict(
            f"run {number} of {job_id} has ended, or is being stopped already", code="not_held"
        )
    _record(session, job_id, "stop the run", by=by, run=number)
    events.wake_control(session)


def cancel(session: Session, job_id: str, *, by: str) -> None:
    """Cancel a job of any project."""
    controls.cancel(session, job_id, project_id=_project(session, job_id), by=by)


def pause(session: Session, job_id: str, *, by: str) -> None:
    """Pause a job of any project."""
    controls.pause(session, job_id, project_id=_project(session, job_id), by=by)


def resume(session: Session, job_id: str, *, by: str) -> None:
    """Resume a job of any project."""
    controls.resume(session, job_id, project_id=_project(session, job_id), by=by)


def _project(session: Session, job_id: str) -> str:
    project = session.scalar(
        sa.select(Job.project_id).where(Job.id == job_id, Job.deleted_at.is_(None))
    )
    if project is None:
        raise NotFound(f"no job {job_id!r}")
    return project


def _record(session: Session, job_id: str, action: str, **data: object) -> None:
    events.record(session, job_id=job_id, type="operator", action=action, **data)
