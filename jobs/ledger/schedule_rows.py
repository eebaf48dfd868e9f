"""The row of a schedule under its lock, and the definition that counts."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.errors import NotFound
from jobs.schedules.definition import Definition
from jobs.tables import Schedule, ScheduleVersion

NO_NEXT: dict[str, Any] = {"next_due": None, "next_at": None}
"""Columns of a schedule that is not waited for."""


def locked(session: Session, key: str, *, project_id: str) -> Schedule:
    """The schedule by its name or id. Raises ``NotFound``, for another project's too."""
    schedule = session.scalar(
        sa.select(Schedule)
        .where(
            sa.or_(Schedule.id == key, Schedule.name == key),
            Schedule.project_id == project_id,
            Schedule.deleted_at.is_(None),
        )
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    if schedule is None:
        raise NotFound(f"no schedule {key!r} in this project")
    return schedule


def definition(session: Session, schedule: Schedule, *, version: int | None = None) -> Definition:
    """What the schedule is, or was under an earlier version."""
    row = version_row(session, schedule, version=version)
    return Definition.model_validate(row.definition)


def version_row(
    session: Session, schedule: Schedule, *, version: int | None = None
) -> ScheduleVersion:
    """The row of a version; by default of the one that counts."""
    return session.get_one(ScheduleVersion, (schedule.id, version or schedule.version))


def update(session: Session, schedule: Schedule, **values: Any) -> None:
    """Write columns of a schedule whose lock is held."""
    for name, value in values.items():
        setattr(schedule, name, value)
    session.flush()
