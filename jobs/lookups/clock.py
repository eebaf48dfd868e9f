"""The database's clock: every lease is measured by it, never by a worker's."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session


def now(session: Session) -> datetime:
    """The time of the current transaction, UTC."""
    return session.execute(sa.select(sa.func.now())).scalar_one()
