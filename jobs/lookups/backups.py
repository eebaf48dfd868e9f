"""Whether a backup is under way: as long as it is, no process removes an object that had a row."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Session

LOCK = 0x6261636B  # "back": the advisory lock that a backup holds


def under_way(session: Session) -> bool:
    """Whether one is. Ask after the commit by which the objects were given up (decision 0058).

    A backup that begins later sees that commit, and so needs them no more.
    """
    free = sa.select(sa.func.pg_try_advisory_xact_lock_shared(LOCK))
    return not session.scalar(free)
