"""Promotions that a schedule holds back because its latest fire has drifted."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from jobs.tables import Fire, Schedule, ScheduleVersion


def reason(session: Session, *, project_id: str, name: str, alias: str) -> str | None:
    """Why no version may take the alias now, in words; ``None``: nothing holds it back.

    Of each schedule the latest fire that was compared counts, if its policy still holds promotions.
    """
    path = ("policy", "drift", "hold_promotion")
    holds = sa.func.jsonb_extract_path_text(ScheduleVersion.definition, *path) == "true"
    latest = (
        sa.select(Schedule.name, Fire.due, Fire.drift)
        .join(Schedule, Schedule.id == Fire.schedule_id)
        .join(
            ScheduleVersion,
            sa.and_(
                ScheduleVersion.schedule_id == Schedule.id,
                ScheduleVersion.version == Schedule.version,
            ),
        )
        .where(
            Schedule.project_id == project_id,
            Schedule.deleted_at.is_(None),
            Fire.drift.is_not(None),
            holds,
        )
        .ext(distinct_on(Fire.schedule_id))
        .order_by(Fire.schedule_id, Fire.due.desc())
    )
    for schedule, due, drift in session.execute(latest):
        if drift and drift["drifted"] and drift["holds"] == f"{name}@{alias}":
            return f"the fire of {due:%Y-%m-%dT%H:%M:%SZ} of {schedule} drifted: {drift['words']}"
    return None
