"""Orders of operators to workers, for the page of a worker."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.tables import Order


def latest(session: Session, worker: str, *, limit: int) -> list[Order]:
    """The newest orders to a worker, the newest first."""
    query = sa.select(Order).where(Order.worker == worker).order_by(Order.id.desc()).limit(limit)
    return list(session.scalars(query))
