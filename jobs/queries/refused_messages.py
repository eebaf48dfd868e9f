"""Messages of the broker that workers refused, and those in quarantine."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.lookups.predicates import QUARANTINE_DEATHS
from jobs.tables import RefusedMessage


def latest(session: Session, *, limit: int = 100) -> list[RefusedMessage]:
    """Those refused last, the newest first."""
    query = sa.select(RefusedMessage).order_by(RefusedMessage.last_at.desc()).limit(limit)
    return list(session.scalars(query))


def quarantined(session: Session) -> frozenset[str]:
    """Digests of messages of which several workers have died."""
    found = sa.select(RefusedMessage.digest).where(RefusedMessage.deaths >= QUARANTINE_DEATHS)
    return frozenset(session.scalars(found))
