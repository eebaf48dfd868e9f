"""Schedules as their owners see them: what they are, what is next, what runs and what came last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from jobs.errors import NotFound
from jobs.queries import fires, paging
from jobs.queries.fires import FireView
from jobs.queries.paging import Order
from jobs.schedules import states
from jobs.schedules.states import FireState
from jobs.tables import Fire, Schedule, ScheduleVersion


@dataclass(frozen=True)
class ScheduleView:
    """A schedule, its version that counts, and its fires in numbers."""

    schedule: Schedule
    version: ScheduleVersion
    running: int
    buffered: int
    last: FireView | None


def get(session: Session, key: str, *, project_id: str) -> ScheduleView:
    """The schedule by its name or id. Raises ``NotFound``, for another project's too."""
    return _views(session, [row(session, key, project_id=project_id)])[0]


def row(session: Session, key: str, *, project_id: str) -> Schedule:
    """The row of the schedule. Raises ``NotFound``."""
    found = session.scalar(
        sa.select(Schedule).where(
            sa.or_(Schedule.id == key, Schedule.name == key),
            Schedule.project_id == project_id,
            Schedule.deleted_at.is_(None),
        )
    )
    if found is None:
        raise NotFound(f"no schedule {key!r} in this project")
    return found


def page(
    session: Session,
    *,
    project_id: str,
    limit: int,
    after: str | None = None,
    order: Order = Order.DESC,
) -> tuple[list[ScheduleView], bool]:
    """Schedules by age, beginning behind the schedule ``after``; and whether there are more.

    The schedule ``after`` may have been deleted since.
    """
    query = sa.select(Schedule).where(
        Schedule.project_id == project_id, Schedule.deleted_at.is_(None)
    )
    place = None if after is None else _place(session, after, project_id=project_id)
    query = paging.sort(query, Schedule.created_at, Schedule.id, order=order, after=place)
    found, more = paging.page(session, query, limit=limit)
    return _views(session, found), more


def version(session: Session, schedule: Schedule) -> ScheduleVersion:
    """The version that counts."""
    return session.get_one(ScheduleVersion, (schedule.id, schedule.version))


def versions(
    session: Session,
    schedule_id: str,
    *,
    limit: int,
    after: int | None = None,
    order: Order = Order.DESC,
) -> tuple[list[ScheduleVersion], bool]:
    """What the schedule was, by number, beginning behind the number ``after``; whether more."""
    query = sa.select(ScheduleVersion).where(ScheduleVersion.schedule_id == schedule_id)
    place = None if after is None else (after,)
    query = paging.sort(query, ScheduleVersion.version, order=order, after=place)
    return paging.page(session, query, limit=limit)


def _place(session: Session, schedule_id: str, *, project_id: str) -> Sequence[object]:
    place = session.execute(
        sa.select(Schedule.created_at, Schedule.id).where(
            Schedule.id == schedule_id, Schedule.project_id == project_id
        )
    ).one_or_none()
    if place is None:
        raise NotFound(f"no schedule {schedule_id!r} in this project to list after", param="after")
    return place


def _views(session: Session, found: Sequence[Schedule]) -> list[ScheduleView]:
    ids = [schedule.id for schedule in found]
    of_current = sa.tuple_(ScheduleVersion.schedule_id, ScheduleVersion.version)
    current = [(schedule.id, schedule.version) for schedule in found]
    versions = {
        each.schedule_id: each
        for each in session.scalars(sa.select(ScheduleVersion).where(of_current.in_(current)))
    }
    counts: dict[tuple[str, FireState], int] = {}
    rows = session.execute(
        sa.select(Fire.schedule_id, Fire.state, sa.func.count())
        .where(Fire.schedule_id.in_(ids), Fire.state.in_(states.OPEN))
        .group_by(Fire.schedule_id, Fire.state)
    )
    for schedule_id, state, count in rows:
        counts[schedule_id, state] = count
    last = _last(session, ids)
    return [
        ScheduleView(
            schedule=schedule,
            version=versions[schedule.id],
            running=counts.get((schedule.id, FireState.SUBMITTED), 0),
            buffered=counts.get((schedule.id, FireState.BUFFERED), 0),
            last=last.get(schedule.id),
        )
        for schedule in found
    ]


def _last(session: Session, ids: Sequence[str]) -> dict[str, FireView]:
    """The newest fire of each schedule."""
    newest = (
        sa.select(Fire)
        .where(Fire.schedule_id == Schedule.id)
        .order_by(Fire.due.desc())
        .limit(1)
        .lateral()
    )
    fire = aliased(Fire, newest)
    found = session.scalars(
        sa.select(fire).select_from(Schedule).join(newest, sa.true()).where(Schedule.id.in_(ids))
    ).all()
    return {view.fire.schedule_id: view for view in fires.views(session, found)}
