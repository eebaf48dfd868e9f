"""How many failed rows a job may have, and when it is certain that it has more.

A row that failed is an error row of a part, whoever found it bad: the planner, the tokenizer, the
model. Without a limit of its own a job may have all of its rows but one fail.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from typing import Self

ENOUGH: dict[str, int] = {
    "row_crashed_worker": 10,
    "row_failed": 100,
    "pipeline_failed": 100,
    "not_finite": 100,
    "out_of_memory": 100,
}
"""Rows of one code after which a job ends if not one row has a result yet.

What a worker dies of costs the most; what the model raises is hardly of the rows' making, when not
one of them went through."""

ENOUGH_OF_THE_CORPUS = 1_000
"""The same of other codes: such rows cost little, and a sorted corpus begins with its bad ones."""

_NUMBER = re.compile(r"[0-9]{1,18}(\.[0-9]{1,18})?(e-[0-9]{1,2})? *%?")
_SHOWN = 5
"""Codes in a message."""


@dataclass(frozen=True)
class Limit:
    """Rows that may fail: a number, or a share of all; neither: all but one."""

    rows: int | None = None
    share: Fraction | None = None

    @classmethod
    def parse(cls, value: str | float | None) -> Self:
        """From a spec's ``max_failed``. Raises ``ValueError`` for what is neither."""
        if value is None:
            return cls()
        text = str(value).strip()
        if _NUMBER.fullmatch(text) is None:
            raise ValueError(_must_be(value))
        number = Fraction(text.rstrip("% "))
        if text.endswith("%") and number <= 100:  # noqa: PLR2004 - per cent
            return cls(share=number / 100)
        if not text.endswith("%") and 0 < number < 1:
            return cls(share=number)
        if not text.endswith("%") and number.denominator == 1:
            return cls(rows=int(number))
        raise ValueError(_must_be(value))

    @property
    def allows_all(self) -> bool:
        """A job with this limit succeeds even if every row fails."""
        return self.share == 1

    def of(self, total: int) -> int:
        """Rows that may fail of a job of ``total`` rows."""
        if self.rows is not None:
            return self.rows
        return total - 1 if self.share is None else int(self.share * total)

    def __str__(self) -> str:
        """As in a message."""
        if self.rows is not None:
            return f"{self.rows:,}"
        return "all rows but one" if self.share is None else f"{float(100 * self.share):g}%"


@dataclass(frozen=True)
class RowErrors:
    """Error rows of one code; the example is the first of them in the order of the corpus."""

    code: str
    rows: int
    row: int
    line: int | None
    id: str | None
    message: str


@dataclass(frozen=True)
class Tally:
    """What is known of a job's failed rows; sums over the chunks that are done."""

    rows_total: int | None  # none: it is not planned to the end
    rows_failed: int
    has_results: bool  # at least one row did not fail
    codes: Mapping[str, int] = field(default_factory=dict)


class Verdict(StrEnum):
    """Why a job ends."""

    OVER = "over"  # more rows failed than its limit allows
    ALL = "all"  # every row failed
    ALIKE = "alike"  # so did its first ones, for one and the same reason


def judge(tally: Tally, limit: Limit) -> Verdict | None:
    """Why the job ends now; ``None``: it goes on, or it has ended well."""
    if limit.allows_all:
        return None
    if limit.rows is not None and tally.rows_failed > limit.rows:
        return Verdict.OVER
    if tally.rows_total is not None and tally.rows_failed > limit.of(tally.rows_total):
        return Verdict.ALL if tally.rows_failed == tally.rows_total else Verdict.OVER
    if not tally.has_results and any(enough(*each) for each in tally.codes.items()):
        return Verdict.ALIKE
    return None


def enough(code: str, rows: int) -> bool:
    """Whether this many failed rows of one code, and no result, mean that the others fail too."""
    return rows >= ENOUGH.get(code, ENOUGH_OF_THE_CORPUS)


def message(verdict: Verdict, tally: Tally, limit: Limit, *, errors: Sequence[RowErrors]) -> str:
    """Why the job failed, with its errors by code, most frequent first, and what to do."""
    match verdict:
        case Verdict.OVER:
            said = f"{_rows(tally.rows_failed)} failed, and max_failed allows {limit}"
            advice = "mend what they fail for, or allow more with max_failed"
        case Verdict.ALL:
            said = f"all {_rows(tally.rows_failed)} failed"
            advice = "mend what they fail for; max_failed 100% would let such a job succeed"
        case Verdict.ALIKE:
            said = f"the first {_rows(tally.rows_failed)} that were done all failed"
            advice = "mend what they fail for; a job with max_failed 100% does the others too"
    return f"{said}{_listed(errors)}; {advice}"


def _listed(errors: Sequence[RowErrors]) -> str:
    if not errors:
        return ""
    counts = ", ".join(f"{each.rows:,} {each.code}" for each in errors[:_SHOWN])
    more = f" and {len(errors) - _SHOWN} more codes" if len(errors) > _SHOWN else ""
    first = errors[0]
    place = f"row {first.row:,}" if first.line is None else f"line {first.line:,}"
    return f": {counts}{more}; such as {place}: {first.message}"


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


def _must_be(value: object) -> str:
    return (
        "max_failed must be a share, such as 0.1 or 10%, or a whole number of rows, "
        f"not {str(value)!r}"
    )
