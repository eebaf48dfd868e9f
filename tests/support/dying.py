"""Death at a boundary between two statements of SQL, or around the commit.

A boundary is before a statement, before a commit, or after one: boundary 1 comes before the first
statement of a transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy import event


class Died(BaseException):
    """No ``except Exception`` survives it, as none survives SIGKILL."""


@contextmanager
def at_boundaries(engine: sa.Engine, reached: Callable[[int], None]) -> Iterator[None]:
    """Calls ``reached`` with the number of each boundary."""
    count = 0

    def boundary(*_: object) -> None:
        nonlocal count
        count += 1
        reached(count)

    names = ("before_cursor_execute", "commit")
    for name in names:
        event.listen(engine, name, boundary)
    try:
        yield
        boundary()
    finally:
        for name in names:
            event.remove(engine, name, boundary)


@contextmanager
def dying_at(engine: sa.Engine, number: int) -> Iterator[None]:
    """Raises ``Died`` at that boundary, if it comes."""

    def reached(count: int) -> None:
        if count == number:
            raise Died

    with at_boundaries(engine, reached):
        yield
