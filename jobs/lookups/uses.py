"""Which schedule names a file or a version: its next fires would need it."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONPATH
from sqlalchemy.orm import Session

from jobs.schedules.states import FireState
from jobs.tables import Fire, Schedule, ScheduleVersion


def schedule(session: Session, value: str, *, project_id: str) -> str | None:
    """The oldest schedule of which a text is this one: in its version, or in one that is waiting.

    A buffered fire is submitted by the version under which it was due.
    """
    named = sa.func.jsonb_path_exists(
        ScheduleVersion.definition,
        sa.cast("$.jobs[*].spec.** ? (@ == $value)", JSONPATH),
        sa.func.jsonb_build_object("value", value),
    )
    waiting = sa.exists().where(
        Fire.schedule_id == Schedule.id,
        Fire.version == ScheduleVersion.version,
        Fire.state == FireState.BUFFERED,
    )
    query = (
        sa.select(Schedule.name)
        .join(ScheduleVersion, ScheduleVersion.schedule_id == Schedule.id)
        .where(
            Schedule.project_id == project_id,
            Schedule.deleted_at.is_(None),
            sa.or_(ScheduleVersion.version == Schedule.version, waiting),
            named,
        )
    )
    return session.scalar(query.order_by(Schedule.created_at, Schedule.id).limit(1))
