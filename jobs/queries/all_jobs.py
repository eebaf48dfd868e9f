"""Jobs of every project, as operators see them in Flower.

A user never reaches this: the API asks ``jobs.queries.jobs``, which names a project (promise P9).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.errors import NotFound
from jobs.lookups import row_errors, subjects
from jobs.queries import jobs, paging
from jobs.queries.job_filters import JobFilter
from jobs.queries.jobs import JobView
from jobs.queries.paging import Order
from jobs.tables import Job


@dataclass(frozen=True, kw_only=True)
class AllJobsFilter:
    """Conditions that all hold; ``None``: any."""

    jobs: JobFilter = jobs.ANY
    id: str | None = None
    project: str | None = None
    model: str | None = None  # a part of its name, in letters of either case

    def conditions(self) -> Iterator[sa.ColumnElement[bool]]:
        """As SQL."""
        yield from self.jobs.conditions()
        if self.id is not None:
            yield Job.id == self.id
        if self.project is not None:
            yield Job.project_id == self.project
        if self.model is not None:
            yield subjects.model().icontains(self.model, autoescape=True)


@dataclass(frozen=True)
class ListedJob:
    """A job in a listing, with its error rows by code."""

    view: JobView
    errors: dict[str, int]


EVERY = AllJobsFilter()


def page(
    session: Session, *, limit: int, after: str | None = None, wanted: AllJobsFilter = EVERY
) -> tuple[list[ListedJob], bool]:
    """The newest jobs behind the job ``after``, and whether there are more.

    Raises ``NotFound`` where there is no job ``after``. It may have been deleted since.
    """
    query = paging.sort(
        sa.select(Job).where(*wanted.conditions()),
        *(Job.created_at, Job.id),
        order=Order.DESC,
        after=None if after is None else _place(session, after),
    )
    found, more = paging.page(session, query, limit=limit)
    views = jobs.views(session, found, histograms=False)
    failing = [view.job.id for view in views if view.counts.rows_failed]
    errors = row_errors.rows_by_code(session, failing) if failing else {}
    return [ListedJob(view, errors.get(view.job.id, {})) for view in views], more


def get(session: Session, job_id: str) -> JobView:
    """The job. Raises ``NotFound``."""
    job = session.scalar(sa.select(Job).where(Job.id == job_id, Job.deleted_at.is_(None)))
    if job is None:
        raise NotFound(f"no job {job_id!r}")
    (view,) = jobs.views(session, [job], histograms=True)
    return view


def _place(session: Session, job_id: str) -> Sequence[object]:
    place = session.execute(sa.select(Job.created_at, Job.id).where(Job.id == job_id)).one_or_none()
    if place is None:
        raise NotFound(f"no job {job_id!r} to list after", param="after")
    return place
