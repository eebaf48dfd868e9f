"""What becomes of a chunk whose worker died: again, split, or condemned."""

from __future__ import annotations

from enum import StrEnum

DEATHS = 2
"""Workers that a chunk may kill before it is cut in two."""


class Verdict(StrEnum):
    """What to do with a chunk whose worker died."""

    AGAIN = "again"
    SPLIT = "split"
    CONDEMN = "condemn"


def judge(*, rows: int, crashes: int) -> Verdict:
    """The verdict on a chunk of ``rows`` rows after its ``crashes``-th worker died.

    A half inherits one crash, so that a deadly row among n costs about ``log2 n + 2`` workers and
    not twice as many; a single row starts afresh and must kill two on its own account.
    """
    if crashes < DEATHS:
        return Verdict.AGAIN
    return Verdict.SPLIT if rows > 1 else Verdict.CONDEMN


def inherited(*, rows: int) -> int:
    """The crashes that a half of ``rows`` rows starts with."""
    return DEATHS - 1 if rows > 1 else 0


def halves(*, first_row: int, rows: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Two ranges ``(first_row, rows)`` that together are exactly the one given."""
    left = rows // 2
    return (first_row, left), (first_row + left, rows - left)
