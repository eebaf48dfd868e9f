"""A job's history."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.tables import Event


def since(session: Session, job_id: str, *, after: int = 0, limit: int = 200) -> list[Event]:
    """Events behind the id ``after``, oldest first."""
    query = (
        sa.select(Event)
        .where(Event.job_id == job_id, Event.id > after)
        .order_by(Event.id)
        .limit(limit)
    )
    return list(session.scalars(query))


def latest(session: Session, job_id: str, *, limit: int) -> list[Event]:
    """The last events, the newest first."""
    query = sa.select(Event).where(Event.job_id == job_id).order_by(Event.id.desc()).limit(limit)
    return list(session.scalars(query))
