"""The database's clock, for decisions that need the time; never a worker's clock."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session


def now(session: Session) -> datetime:
    """The time of the current transaction, UTC."""
    return session.execute(sa.select(sa.func.now())).scalar_one()


def seconds_ago(seconds: float) -> sa.ColumnElement[datetime]:
    """The moment ``seconds`` before the current transaction, as an SQL expression."""
    return sa.func.now() - sa.func.make_interval(0, 0, 0, 0, 0, 0, seconds)
