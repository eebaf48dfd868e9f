"""Fires as the owners of their schedules see them, and the fire that a job comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.errors import NotFound
from jobs.lookups import predicates
from jobs.queries import paging
from jobs.queries.paging import Order
from jobs.schedules.states import FireOrigin, FireState
from jobs.states import JobState
from jobs.tables import Fire, Job, JobGroup, Schedule


@dataclass(frozen=True)
class FireOfJob:
    """The schedule that submitted a job, and when it was due."""

    schedule_id: str
    name: str
    due: datetime
    local: str
    origin: FireOrigin


@dataclass(frozen=True)
class JobOfFire:
    """A job that a fire has submitted."""

    id: str
    state: JobState
    member: str | None  # its name in the group; null: it is the only one
    skipped: str | None  # why it was cancelled: there was nothing for it to do; null: it was not


@dataclass(frozen=True)
class FireView:
    """A fire with its jobs."""

    fire: Fire
    group_id: str | None  # of its jobs; null: it has one job or none
    jobs: tuple[JobOfFire, ...]  # deleted ones aside, of a group in the order of the template


def of_jobs(session: Session, jobs: Sequence[Job]) -> dict[str, FireOfJob]:
    """The fires of those jobs that a schedule has submitted, by the job's id."""
    fire_ids = {job.fire_id for job in jobs if job.fire_id is not None}
    if not fire_ids:
        return {}
    rows = session.execute(
        sa.select(Fire.id, Schedule.id, Schedule.name, Fire.due, Fire.local, Fire.origin)
        .join(Schedule, Schedule.id == Fire.schedule_id)
        .where(Fire.id.in_(fire_ids))
    )
    found = {
        fire_id: FireOfJob(schedule_id, name, due, local, origin)
        for fire_id, schedule_id, name, due, local, origin in rows
    }
    return {job.id: found[job.fire_id] for job in jobs if job.fire_id is not None}


def get(session: Session, fire_id: int) -> FireView:
    """One fire, by the id that the ledger returned."""
    return views(session, [session.get_one(Fire, fire_id, populate_existing=True)])[0]


def page(
    session: Session,
    schedule_id: str,
    *,
    limit: int,
    after: int | None = None,
    order: Order = Order.DESC,
    state: FireState | None = None,
) -> tuple[list[FireView], bool]:
    """Fires by their time, beginning behind the fire ``after``; and whether there are more.

    Raises ``NotFound`` for a fire ``after`` that is none of the schedule's.
    """
    query = sa.select(Fire).where(Fire.schedule_id == schedule_id)
    if state is not None:
        query = query.where(Fire.state == state)
    place = None if after is None else _place(session, after, schedule_id=schedule_id)
    query = paging.sort(query, Fire.due, order=order, after=place)
    found, more = paging.page(session, query, limit=limit)
    return views(session, found), more


def _place(session: Session, fire_id: int, *, schedule_id: str) -> tuple[datetime]:
    due = session.scalar(
        sa.select(Fire.due).where(Fire.id == fire_id, Fire.schedule_id == schedule_id)
    )
    if due is None:
        raise NotFound(f"no fire {fire_id} of this schedule to list after", param="after")
    return (due,)


def views(session: Session, found: Sequence[Fire]) -> list[FireView]:
    """Fires with their jobs."""
    jobs: dict[int | None, list[JobOfFire]] = {}
    groups: dict[int | None, str | None] = {}
    skipped = sa.case((predicates.job_skipped(), Job.skipped))
    rows = session.execute(
        sa.select(Job.fire_id, Job.group_id, Job.id, Job.state, Job.member, skipped)
        .outerjoin(JobGroup, JobGroup.id == Job.group_id)
        .where(Job.fire_id.in_([fire.id for fire in found]), Job.deleted_at.is_(None))
        .order_by(sa.func.array_position(JobGroup.members, Job.member), Job.created_at, Job.id)
    )
    for fire_id, group_id, *of_job in rows:
        jobs.setdefault(fire_id, []).append(JobOfFire(*of_job))
        groups[fire_id] = group_id
    return [FireView(fire, groups.get(fire.id), tuple(jobs.get(fire.id, ()))) for fire in found]
