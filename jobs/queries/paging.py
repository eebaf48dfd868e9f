"""One page of a listing: one row more is read than is shown, to know whether more follow."""

from __future__ import annotations

from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import Session

T = TypeVar("T")


def page(session: Session, query: sa.Select[T], *, limit: int) -> tuple[list[T], bool]:
    """At most ``limit`` rows of the query, and whether there are more."""
    rows = list(session.scalars(query.limit(limit + 1)))
    return rows[:limit], len(rows) > limit
