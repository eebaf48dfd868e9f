"""The newest rows of a corpus, which are held back from training because they decide a promotion.

A corpus is read in its order, so its last rows are the newest where rows are appended to it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Self

_QUANTITY = re.compile(r"[0-9]{1,18}(\.[0-9]{1,18})?(e-[0-9]{1,2})? *%?")


@dataclass(frozen=True)
class HeldBack:
    """Rows that are held back: a count, or a share of all; one of both is null."""

    rows: int | None = None
    share: Fraction | None = None

    @classmethod
    def parse(cls, value: object) -> Self:
        """From ``promote.newest`` of a spec. Raises ``ValueError`` for any other form."""
        text = "" if isinstance(value, bool) else str(value).strip()
        if _QUANTITY.fullmatch(text) is None:
            raise ValueError(_must_be(value))
        quantity = Fraction(text.rstrip("% "))
        if text.endswith("%"):
            quantity /= 100
        elif quantity >= 1 and quantity.denominator == 1:
            return cls(rows=int(quantity))
        if not 0 < quantity < 1:
            raise ValueError(_must_be(value))
        return cls(share=quantity)

    def of(self, total: int) -> int:
        """How many of ``total`` rows; a share of any rows is one row at least."""
        if self.rows is not None:
            return self.rows
        assert self.share is not None
        return max(1, int(self.share * total)) if total else 0


@dataclass(frozen=True)
class Cut:
    """Where the newest rows begin: behind whole shards, and in the middle of one."""

    whole: int  # shards that stay for training as they are
    rows: int  # of the next shard, that stay as well; 0: none of it


def cut(shards: Sequence[int], *, newest: int) -> Cut:
    """Where the last ``newest`` rows of shards with these rows begin."""
    kept = max(0, sum(shards) - newest)
    for whole, rows in enumerate(shards):
        if kept < rows:
            return Cut(whole, kept)
        kept -= rows
    return Cut(len(shards), 0)


def _must_be(value: object) -> str:
    return (
        "newest must be a share, such as 0.1 or 10%, or a whole number of rows, such as 1000, not "
        f"{str(value)[:60]!r}"
    )
