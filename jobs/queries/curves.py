"""The curves of a training job: series of values by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.queries import paging
from jobs.tables import Point

PACE_POINTS = 500
"""Points looked at to see how fast a run goes."""

_LAST = sa.text(
    """
    SELECT wanted.job_id, last.name, last.step, last.value, last.run_number, last.at
    FROM unnest(CAST(:job_ids AS text[]), CAST(:up_to AS bigint[])) AS wanted (job_id, up_to)
    CROSS JOIN LATERAL (
        WITH RECURSIVE named (name) AS (
            SELECT min(name) FROM points WHERE job_id = wanted.job_id
            UNION ALL
            SELECT (
                SELECT min(name) FROM points
                WHERE job_id = wanted.job_id AND points.name > named.name
            )
            FROM named WHERE named.name IS NOT NULL
        )
        SELECT name FROM named WHERE name IS NOT NULL
    ) AS named
    CROSS JOIN LATERAL (
        SELECT * FROM points
        WHERE job_id = wanted.job_id AND name = named.name
            AND (wanted.up_to IS NULL OR step <= wanted.up_to)
        ORDER BY step DESC LIMIT 1
    ) AS last
    ORDER BY wanted.job_id, last.name
    """
)
"""Steps from name to name through the index: a look costs as many reads as there are names, and not
as many as there are points."""


@dataclass(frozen=True)
class LastPoint:
    """The newest number of one curve."""

    name: str
    step: int
    value: float
    run_number: int
    at: datetime


@dataclass(frozen=True)
class Pace:
    """Where a run was a while ago."""

    step: int
    at: datetime


def page(
    session: Session, job_id: str, *, name: str, limit: int, after: int = -1
) -> tuple[list[Point], bool]:
    """The points of one curve after the step ``after``, in order; and whether more follow."""
    query = (
        sa.select(Point)
        .where(Point.job_id == job_id, Point.name == name, Point.step > after)
        .order_by(Point.step)
    )
    return paging.page(session, query, limit=limit)


def last(session: Session, wanted: Mapping[str, int | None]) -> dict[str, list[LastPoint]]:
    """The newest point of every curve of each job, by name.

    ``wanted``: job id to the step that the job has come to, or ``None``. A run that resumed is
    behind what the run before it had measured, and those points are not the newest any more.
    """
    found: dict[str, list[LastPoint]] = {job_id: [] for job_id in wanted}
    if wanted:
        values = {"job_ids": list(wanted), "up_to": list(wanted.values())}
        for job_id, *point in session.execute(_LAST, values):
            found[job_id].append(LastPoint(*point))
    return found


def pace(
    session: Session, job_id: str, *, run_number: int, now: datetime, window: timedelta
) -> Pace | None:
    """The last step of the oldest points that a run reported within the window."""
    newest = (
        sa.select(Point.step, Point.at)
        .where(Point.job_id == job_id, Point.name == "loss", Point.run_number == run_number)
        .order_by(Point.step.desc())
        .limit(PACE_POINTS)
        .subquery()
    )
    query = (
        sa.select(newest.c.step, newest.c.at)
        .where(newest.c.at > now - window)
        .order_by(newest.c.at, newest.c.step.desc())
        .limit(1)
    )
    row = session.execute(query).one_or_none()
    return Pace(step=row.step, at=row.at) if row else None
