"""All jobs that a filter leaves: how many of which sort, and one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.decisions.job_actions import JobFacts
from jobs.errors import NotFound
from jobs.kinds import TRAINING
from jobs.queries import paging
from jobs.queries.job_filters import JobFilter
from jobs.queries.paging import Order
from jobs.states import ACTIVE, FINAL, JobState
from jobs.tables import Job

LATELY = timedelta(days=1)


@dataclass(frozen=True)
class SelectedJob:
    """A job that the filter leaves."""

    id: str
    facts: JobFacts


def sorts(session: Session, *, project_id: str, wanted: JobFilter) -> dict[JobFacts, int]:
    """How many jobs there are of which sort, the most frequent first."""
    facts = _facts()
    number = sa.func.count()
    query = (
        sa.select(*facts, number)
        .where(Job.project_id == project_id, *wanted.conditions())
        .group_by(*facts)
        .order_by(number.desc())
    )
    return {JobFacts(*row): count for *row, count in session.execute(query)}


def after(
    session: Session, *, project_id: str, wanted: JobFilter, limit: int, after: str | None
) -> list[SelectedJob]:
    """The oldest jobs behind the job ``after``, which may have been deleted since.

    Raises ``NotFound`` where there was no job ``after``.
    """
    query = sa.select(Job.id, *_facts()).where(Job.project_id == project_id, *wanted.conditions())
    place = None if after is None else _place(session, after, project_id=project_id)
    query = paging.sort(query, Job.created_at, Job.id, order=Order.ASC, after=place)
    rows = session.execute(query.limit(limit))
    return [SelectedJob(job_id, JobFacts(*facts)) for job_id, *facts in rows]


def at_a_glance(session: Session, *, project_id: str) -> dict[JobState, int]:
    """Jobs by state: of those that have not ended all, of the others those that ended lately."""
    ours = sa.and_(Job.project_id == project_id, Job.deleted_at.is_(None))
    active = sa.select(Job.state).where(ours, Job.state.in_(ACTIVE))
    ended = sa.select(Job.state).where(
        ours, Job.state.in_(FINAL), Job.finished_at > sa.func.now() - LATELY
    )
    both = sa.union_all(active, ended).subquery()
    found = session.execute(sa.select(both.c.state, sa.func.count()).group_by(both.c.state))
    return {JobState(state): count for state, count in found}


def _facts() -> tuple[sa.SQLColumnExpression[Any], ...]:
    """The fields of ``JobFacts``, in their order."""
    failed = sa.func.coalesce(Job.output["rows_failed"].as_integer(), 0) > 0
    damaged = Job.output["damage"].as_string().is_not(None)
    return (
        *(Job.state, Job.kind.in_(TRAINING).label("trains"), Job.kept),
        sa.func.coalesce(sa.or_(failed, damaged), sa.false()).label("to_retry"),
    )


def _place(session: Session, job_id: str, *, project_id: str) -> tuple[Any, str]:
    query = sa.select(Job.created_at).where(Job.id == job_id, Job.project_id == project_id)
    created_at = session.scalar(query)
    if created_at is None:
        raise NotFound(f"no job {job_id!r} in this project to go on after", param="after")
    return (created_at, job_id)
