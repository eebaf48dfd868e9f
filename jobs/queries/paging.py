"""One page of a listing: one row more is read than is shown, to know whether more follow.

A listing is sorted by columns that no two of its rows share and that never change, and the next
page begins behind the place of the last row: rows that come or go meanwhile move no other row.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import Session

T = TypeVar("T")


class Order(StrEnum):
    """Which end of a listing comes first."""

    ASC = "asc"
    DESC = "desc"


def page(session: Session, query: sa.Select[T], *, limit: int) -> tuple[list[T], bool]:
    """At most ``limit`` rows of the query, and whether there are more."""
    rows = list(session.scalars(query.limit(limit + 1)))
    return rows[:limit], len(rows) > limit


def sort(
    query: sa.Select[T], *columns: Any, order: Order, after: Sequence[Any] | None
) -> sa.Select[T]:
    """The query in this order, behind the row whose columns have the values ``after``."""
    if after is not None:
        key, place = sa.tuple_(*columns), sa.tuple_(*after)
        query = query.where(key > place if order is Order.ASC else key < place)
    return query.order_by(*(each.asc() if order is Order.ASC else each.desc() for each in columns))
