"""What jobs need, as it is now, and the jobs behind a job."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.decisions.dependencies import DependencyOn, Need
from jobs.lookups import predicates
from jobs.tables import Job, JobDependency


def needs(session: Session, job_ids: Collection[str]) -> dict[str, list[Need]]:
    """By job, the jobs that it needs, by age; jobs that need none are left out."""
    rows = session.execute(
        sa.select(
            JobDependency.job_id,
            JobDependency.on,
            JobDependency.gives_model,
            *(Job.id, Job.state, Job.error_code),
            predicates.job_skipped().label("skipped"),
            sa.func.coalesce(Job.member, Job.spec["name"].as_string()).label("name"),
        )
        .join(Job, Job.id == JobDependency.needs_job_id)
        .where(JobDependency.job_id.in_(job_ids))
        .order_by(Job.created_at, Job.id)
    )
    found: dict[str, list[Need]] = {}
    for row in rows:
        need = Need(
            job_id=row.id,
            name=row.name,
            on=DependencyOn(row.on),
            state=row.state,
            error_code=row.error_code,
            gives_model=row.gives_model,
            skipped=row.skipped,
        )
        found.setdefault(row.job_id, []).append(need)
    return found


def needed(session: Session, job_id: str) -> list[str]:
    """Every job that the job needs, directly or not."""
    first = sa.select(JobDependency.needs_job_id).where(JobDependency.job_id == job_id)
    found = first.cte("needed", recursive=True)
    found = found.union(
        sa.select(JobDependency.needs_job_id).join(
            found, JobDependency.job_id == found.c.needs_job_id
        )
    )
    return list(session.scalars(sa.select(found.c.needs_job_id)))


def behind(session: Session, job_id: str) -> list[str]:
    """The job and every job that needs it, directly or not."""
    first = sa.select(JobDependency.job_id).where(JobDependency.needs_job_id == job_id)
    found = first.cte("behind", recursive=True)
    found = found.union(
        sa.select(JobDependency.job_id).join(found, JobDependency.needs_job_id == found.c.job_id)
    )
    return [job_id, *session.scalars(sa.select(found.c.job_id))]
