"""How many failed rows a job may have, and when it is certain to exceed that.

A failed row is an error row of a part, whether the planner, the tokenizer or the model refused it.
Without a limit of its own, a job succeeds if at least one row has a result.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from typing import Self

CONCLUSIVE_ROWS: dict[str, int] = {
    "row_crashed_worker": 10,
    "row_failed": 100,
    "pipeline_failed": 100,
    "not_finite": 100,
    "out_of_memory": 100,
}
"""Failed rows of one code after which a job ends, if not one row has a result yet.

Rows that kill a worker cost the most. Exceptions of the model are hardly the fault of the rows if
not one row succeeded."""

DEFAULT_CONCLUSIVE_ROWS = 1_000
"""The same for every other code: such rows cost little, and in a sorted corpus bad rows may come
first."""

_QUANTITY = re.compile(r"[0-9]{1,18}(\.[0-9]{1,18})?(e-[0-9]{1,2})? *%?")
_MAX_LISTED = 5
"""Codes in a message."""


@dataclass(frozen=True)
class FailureLimit:
    """Rows that may fail: a count, or a share of all rows; with neither, all rows but one."""

    rows: int | None = None
    share: Fraction | None = None

    @classmethod
    def parse(cls, value: str | float | None) -> Self:
        """From a spec's ``max_failed``. Raises ``ValueError`` for any other form."""
        if value is None:
            return cls()
        text = str(value).strip()
        if _QUANTITY.fullmatch(text) is None:
            raise ValueError(_must_be(value))
        quantity = Fraction(text.rstrip("% "))
        if text.endswith("%") and quantity <= 100:  # noqa: PLR2004 - per cent
            return cls(share=quantity / 100)
        if not text.endswith("%") and 0 < quantity < 1:
            return cls(share=quantity)
        if not text.endswith("%") and quantity.denominator == 1:
            return cls(rows=int(quantity))
        raise ValueError(_must_be(value))

    @property
    def allows_all(self) -> bool:
        """Whether a job with this limit succeeds even if every row fails."""
        return self.share == 1

    def of(self, total: int) -> int:
        """How many of ``total`` rows may fail."""
        if self.rows is not None:
            return self.rows
        return total - 1 if self.share is None else int(self.share * total)

    def __str__(self) -> str:
        """As in a message."""
        if self.rows is not None:
            return f"{self.rows:,}"
        return "all rows but one" if self.share is None else f"{float(100 * self.share):g}%"


@dataclass(frozen=True)
class RowErrorGroup:
    """The error rows of one code, with the first of them in corpus order as the example."""

    code: str
    rows: int
    row: int
    line: int | None
    id: str | None
    message: str
    source: str | None = None  # the object with that line; None: the corpus is one object


@dataclass(frozen=True)
class FailureCounts:
    """Failed rows of a job, summed over its finished chunks."""

    rows_total: int | None  # None: planning has not finished
    rows_failed: int
    has_results: bool  # at least one row did not fail
    codes: Mapping[str, int] = field(default_factory=dict)


class FailureVerdict(StrEnum):
    """Why failed rows end a job."""

    OVER = "over"  # more rows failed than its limit allows
    ALL = "all"  # every row failed
    ALIKE = "alike"  # its first rows all failed, conclusively many of them with the same code


def judge(counts: FailureCounts, limit: FailureLimit) -> FailureVerdict | None:
    """Why the job fails now; ``None`` if it goes on, or has succeeded."""
    if limit.allows_all or counts.rows_failed == 0:
        return None
    if limit.rows is not None and counts.rows_failed > limit.rows:
        return FailureVerdict.OVER
    if counts.rows_total is not None and counts.rows_failed > limit.of(counts.rows_total):
        failed_all = counts.rows_failed == counts.rows_total
        return FailureVerdict.ALL if failed_all else FailureVerdict.OVER
    if not counts.has_results and any(is_conclusive(*item) for item in counts.codes.items()):
        return FailureVerdict.ALIKE
    return None


def is_conclusive(code: str, rows: int) -> bool:
    """Whether this many failed rows of one code, without a result, mean that all will fail."""
    return rows >= CONCLUSIVE_ROWS.get(code, DEFAULT_CONCLUSIVE_ROWS)


def message(
    verdict: FailureVerdict,
    counts: FailureCounts,
    limit: FailureLimit,
    *,
    errors: Sequence[RowErrorGroup],
) -> str:
    """Why the job failed, its errors by code, most frequent first, and what to do."""
    match verdict:
        case FailureVerdict.OVER:
            reason = f"{_rows(counts.rows_failed)} failed, and max_failed allows {limit}"
            advice = "fix what makes them fail, or allow more with max_failed"
        case FailureVerdict.ALL:
            reason = f"all {_rows(counts.rows_failed)} failed"
            advice = "fix what makes them fail; max_failed 100% would let such a job succeed"
        case FailureVerdict.ALIKE:
            reason = f"the first {_rows(counts.rows_failed)} that were done all failed"
            advice = (
                "fix what makes them fail; a job with max_failed 100% processes the other rows too"
            )
    return f"{reason}{_listed(errors)}; {advice}"


def _listed(errors: Sequence[RowErrorGroup]) -> str:
    if not errors:
        return ""
    counts = ", ".join(f"{error.rows:,} {error.code}" for error in errors[:_MAX_LISTED])
    more = f" and {len(errors) - _MAX_LISTED} more codes" if len(errors) > _MAX_LISTED else ""
    first = errors[0]
    where = f"row {first.row:,}" if first.line is None else f"line {first.line:,}"
    where += f" of {first.source}" if first.source else ""
    return f": {counts}{more}; such as {where}: {first.message}"


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


def _must_be(value: object) -> str:
    return (
        "max_failed must be a share, such as 0.1 or 10%, or a whole number of rows, "
        f"not {str(value)!r}"
    )
