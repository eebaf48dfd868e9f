"""How long things of the project are kept, and what they take up."""

from __future__ import annotations

from fastapi import APIRouter

from api.server import schemas
from api.server.dependencies import JobId, ProjectId, Shared, Transaction
from jobs.ledger import retention as ledger
from jobs.queries import jobs, retention, storage
from jobs.retention import JobRetention, Retention

router = APIRouter(prefix="/v1", tags=["retention"])


@router.get("/retention")
def get_retention(
    session: Transaction, project: ProjectId, shared: Shared
) -> schemas.ProjectRetention:
    """How long things of the project are kept."""
    policy = retention.of_project(session, project)
    return schemas.ProjectRetention.of(policy, defaults=shared.settings.retention)


@router.put("/retention")
def set_retention(
    policy: Retention, session: Transaction, project: ProjectId, shared: Shared
) -> schemas.ProjectRetention:
    """Replace the policy of the project; what is due by it goes soon after."""
    ledger.set_project(session, project, policy)
    return schemas.ProjectRetention.of(policy, defaults=shared.settings.retention)


@router.get("/jobs/{job_id}/retention")
def get_job_retention(
    job_id: JobId, session: Transaction, project: ProjectId, shared: Shared
) -> schemas.JobKept:
    """How long one job is kept, what of it goes when, and what is gone."""
    job = jobs.own_row(session, job_id, project_id=project)
    keeping = retention.of_job(session, job, defaults=shared.settings.retention)
    return schemas.JobKept.of(job_id, keeping)


@router.put("/jobs/{job_id}/retention")
def set_job_retention(
    job_id: JobId,
    policy: JobRetention,
    session: Transaction,
    project: ProjectId,
    shared: Shared,
) -> schemas.JobKept:
    """Replace the periods of one job; with `keep` nothing of it is removed or deleted."""
    ledger.set_job(session, job_id, policy, project_id=project)
    job = jobs.own_row(session, job_id, project_id=project)
    keeping = retention.of_job(session, job, defaults=shared.settings.retention)
    return schemas.JobKept.of(job_id, keeping)


@router.get("/storage")
def get_storage(session: Transaction, project: ProjectId) -> schemas.StorageUsage:
    """Objects and bytes of the project by kind, as they were counted last."""
    return schemas.StorageUsage.of(storage.usage(session, project))
