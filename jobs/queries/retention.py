"""How long things of a project and of a job are kept, and what is gone already."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs import retention
from jobs.decisions import retention as decisions
from jobs.decisions.retention import EndedJob
from jobs.lookups import pieces
from jobs.lookups import removals as lookup
from jobs.retention import JobPeriods, Periods, Piece, Retention
from jobs.tables import Job, Project


@dataclass(frozen=True)
class JobKeeping:
    """What holds for one job."""

    kept: bool
    own: JobPeriods
    periods: Periods
    removed: dict[Piece, datetime]
    goes: dict[Piece, datetime]  # when what is there will be removed; empty before it has ended


def of_project(session: Session, project_id: str) -> Retention:
    """The project's policy, as it was set."""
    query = sa.select(Project.retention).where(Project.id == project_id)
    return Retention.model_validate(session.scalar(query) or {})


def of_job(session: Session, job: Job, *, defaults: Retention) -> JobKeeping:
    """What holds for a job."""
    own = JobPeriods.model_validate(job.retention or {})
    policy = of_project(session, job.project_id)
    periods = retention.effective(defaults, policy, own)
    removed = lookup.of_job(session, job.id)
    return JobKeeping(job.kept, own, periods, removed, _goes(job, periods, frozenset(removed)))


def _goes(job: Job, periods: Periods, removed: frozenset[Piece]) -> dict[Piece, datetime]:
    if job.finished_at is None or job.kept:
        return {}
    ended = EndedJob(
        state=job.state,
        finished_at=job.finished_at,
        pieces=pieces.of_job(job),
        removed=removed,
    )
    return decisions.goes_at(ended, periods)
