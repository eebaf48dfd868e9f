"""What jobs read, as it is written down, and what else there is to read."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.inputs import Input
from jobs.kinds import Since
from jobs.lookups import inputs as lookups
from jobs.queries import paging
from jobs.queries.paging import Order
from jobs.tables import File, Job, JobInput

Place = tuple[datetime, str]
"""Of an uploaded file in the order of their age."""


def of_job(session: Session, job_id: str) -> dict[str, tuple[Input, ...]] | None:
    """The objects of each corpus by its split; ``None``: they are not written down yet."""
    if session.scalar(sa.select(Job.inputs_at).where(Job.id == job_id)) is None:
        return None
    found: dict[str, list[Input]] = {}
    rows = session.scalars(
        sa.select(JobInput)
        .where(JobInput.job_id == job_id)
        .order_by(JobInput.split, JobInput.index)
        .execution_options(yield_per=1_000)
    )
    for row in rows:
        found.setdefault(row.split, []).append(_input(row))
    return {split: tuple(inputs) for split, inputs in found.items()}


def page(
    session: Session, job_id: str, *, limit: int, after: int | None = None
) -> tuple[list[JobInput], bool]:
    """Objects of a job, corpus by corpus, behind the first ``after``; whether there are more."""
    query = (
        sa.select(JobInput)
        .where(JobInput.job_id == job_id)
        .order_by(JobInput.split, JobInput.index)
        .offset(after or 0)
    )
    return paging.page(session, query, limit=limit)


def new(
    session: Session, job_id: str, listed: list[Input], *, split: str, since: Since | None
) -> list[Input]:
    """Of these objects those that no other fire of the job's schedule has taken so far."""
    if since is None:
        return listed
    names = [each.name for each in listed]
    taken = lookups.taken(session, job_id, split=split, since=since, names=names)
    return [each for each in listed if (each.name, each.version) not in taken]


def window(
    session: Session, job_id: str, *, split: str, name: str, since: Since | None
) -> lookups.Window:
    """The bounds of the job's rows of a SQL source."""
    return lookups.window(session, job_id, split=split, name=name, since=since)


def tagged(
    session: Session, tag: str, *, project_id: str, limit: int, after: Place | None
) -> tuple[list[Input], Place | None]:
    """Uploaded files with this tag, the oldest first, behind a place; and the place of the last.

    ``None``: no file follows.
    """
    query = sa.select(File).where(
        File.tag == tag, File.project_id == project_id, File.deleted_at.is_(None)
    )
    query = paging.sort(query, File.created_at, File.id, order=Order.ASC, after=after)
    rows, more = paging.page(session, query, limit=limit)
    place = (rows[-1].created_at, rows[-1].id) if more else None
    return [of_file(row) for row in rows], place


def of_file(file: File) -> Input:
    """An uploaded file as an object of a corpus."""
    return Input(
        name=file.id,
        version=f"{file.object_key}:{file.bytes}",
        bytes=file.bytes,
        object_key=file.object_key,
        filename=file.filename,
        sha256=file.sha256,
    )


def _input(row: JobInput) -> Input:
    return Input(
        name=row.name,
        version=row.version,
        bytes=row.bytes,
        object_key=row.object_key,
        filename=row.filename,
        sha256=row.sha256,
        rows=row.rows,
        query=row.query,
    )
