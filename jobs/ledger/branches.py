"""Acting on several jobs at once: on a job and every job behind it, or on a group.

Behind a job are those that need it, and those that need them. Rows are locked by their ids, so that
two who act on branches that meet do not wait for each other in a circle; what is done is done to a
needed job before those that need it.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.decisions import dependencies
from jobs.errors import Conflict, NotFound
from jobs.ledger import controls
from jobs.lookups import dependencies as lookup
from jobs.states import FINAL, JobState
from jobs.tables import Job

RETRIED = frozenset({JobState.FAILED, JobState.CANCELLED})
"""States out of which a job is retried with others; one that succeeded stays as it is."""


def cancel(session: Session, job_id: str, *, project_id: str) -> list[str]:
    """Cancel the job and all behind it that have not ended; those that were.

    Raises ``Conflict`` where all have ended.
    """
    done = cancel_all(session, _branch(session, job_id, project_id=project_id))
    if not done:
        controls.cancel(session, job_id, project_id=project_id)
    return done


def retry(session: Session, job_id: str, *, project_id: str) -> list[str]:
    """Retry the job and all behind it that ended without success; those that were.

    One that needs yet another job which failed stays as it is. Raises ``Conflict`` where there is
    none to be retried.
    """
    done = retry_all(session, _branch(session, job_id, project_id=project_id))
    if not done:
        controls.retry(session, job_id, project_id=project_id)
        done = [job_id]
    return done


def cancel_all(session: Session, jobs: Sequence[Job]) -> list[str]:
    """Cancel those that have not ended; ``jobs`` as ``locked`` returns them."""
    active = [job for job in jobs if job.state not in FINAL]
    for job in active:
        controls.cancel(session, job.id, project_id=job.project_id)
    return [job.id for job in active]


def retry_all(session: Session, jobs: Sequence[Job]) -> list[str]:
    """Retry those that ended without success and can begin; ``jobs`` as ``locked`` returns them."""
    return [job.id for job in jobs if job.state in RETRIED and _retried(session, job)]


def locked(session: Session, condition: sa.ColumnElement[bool], *, project_id: str) -> list[Job]:
    """Those jobs of the project, but deleted ones, each behind those that it needs."""
    found = session.scalars(
        sa.select(Job)
        .where(condition, Job.project_id == project_id, Job.deleted_at.is_(None))
        .order_by(Job.id)
        .with_for_update()
    ).all()
    jobs = {job.id: job for job in found}
    needs = lookup.needs(session, jobs)
    needed_by = {job_id: [need.job_id for need in needs.get(job_id, ())] for job_id in jobs}
    return [jobs[job_id] for job_id in dependencies.in_order(needed_by)]


def _branch(session: Session, job_id: str, *, project_id: str) -> list[Job]:
    ids = lookup.behind(session, job_id)
    found = locked(session, Job.id.in_(ids), project_id=project_id)
    if all(job.id != job_id for job in found):
        raise NotFound(f"no job {job_id!r} in this project")
    return found


def _retried(session: Session, job: Job) -> bool:
    try:
        controls.retry(session, job.id, project_id=job.project_id)
    except Conflict as conflict:
        if conflict.code != dependencies.FAILED:
            raise
        return False
    return True
