"""How many failed rows a job may have, and when it is certain to exceed that."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.decisions import failure_limit
from jobs.decisions.failure_limit import (
    DEFAULT_CONCLUSIVE_ROWS,
    FailureCounts,
    FailureLimit,
    FailureVerdict,
    RowErrorGroup,
    judge,
)
from jobs.kinds import ClassifySpec
from jobs.row_codes import RowCode

LIMITS = st.one_of(
    st.none(),
    st.integers(0, 2_000),
    st.fractions(0, 1, max_denominator=100).map(lambda share: f"{float(100 * share):.2f}%"),
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, FailureLimit()),
        (0, FailureLimit(rows=0)),
        (1, FailureLimit(rows=1)),
        (25, FailureLimit(rows=25)),
        (25.0, FailureLimit(rows=25)),
        ("25", FailureLimit(rows=25)),
        (0.1, FailureLimit(share=Fraction(1, 10))),
        ("0.1", FailureLimit(share=Fraction(1, 10))),
        (1e-5, FailureLimit(share=Fraction(1, 100_000))),
        ("10%", FailureLimit(share=Fraction(1, 10))),
        (" 2.5 % ", FailureLimit(share=Fraction(1, 40))),
        ("0%", FailureLimit(share=Fraction(0))),
        ("100%", FailureLimit(share=Fraction(1))),
    ],
)
def test_a_limit_is_a_share_or_a_number_of_rows(value: Any, expected: FailureLimit) -> None:
    assert FailureLimit.parse(value) == expected


@pytest.mark.parametrize(
    "value", ["", "many", "-1", "101%", "1.5", "%", "1e9", "1/3", "nan", -1, 1.5, True, [1]]
)
def test_anything_else_is_refused_with_a_message_that_says_what_it_must_be(value: Any) -> None:
    fields = {"corpus": {"uri": "file:///c.csv"}, "model": "/m", "max_failed": value}
    with pytest.raises(ValueError, match=r"must be a share, such as 0\.1 or 10%, or a whole"):
        ClassifySpec.model_validate(fields)


@pytest.mark.parametrize(
    ("limit", "total", "failed", "verdict"),
    [
        (None, 10, 9, None),
        (None, 10, 10, FailureVerdict.ALL),
        (None, 1, 1, FailureVerdict.ALL),
        (None, None, 10, None),  # planning is not finished: more rows may follow
        ("100%", 10, 10, None),
        (3, 10, 3, None),
        (3, 10, 4, FailureVerdict.OVER),
        (3, None, 4, FailureVerdict.OVER),  # certain before the corpus is planned
        (0, 10, 1, FailureVerdict.OVER),
        (20, 10, 10, None),  # the user allowed it
        ("10%", 100, 10, None),
        ("10%", 100, 11, FailureVerdict.OVER),
        ("10%", None, 11, None),
        ("10%", 9, 1, FailureVerdict.OVER),
        (0.29, 100, 29, None),  # as a float 0.29 is less than 29 of 100
        ("99%", 10, 10, FailureVerdict.ALL),
    ],
)
def test_a_job_ends_once_more_rows_have_failed_than_allowed(
    limit: Any, total: int | None, failed: int, verdict: FailureVerdict | None
) -> None:
    counts = FailureCounts(rows_total=total, rows_failed=failed, has_results=failed != total)
    assert judge(counts, FailureLimit.parse(limit)) is verdict


@pytest.mark.parametrize(
    ("codes", "has_results", "verdict"),
    [
        ({"row_crashed_worker": 10}, False, FailureVerdict.ALIKE),
        ({"row_crashed_worker": 9}, False, None),
        ({"row_failed": 100, "bad_json": 3}, False, FailureVerdict.ALIKE),
        ({"row_failed": 99, "not_finite": 99}, False, None),
        ({"row_failed": 100}, True, None),
        ({"empty_text": 999}, False, None),
        ({"empty_text": 1_000}, False, FailureVerdict.ALIKE),
        ({"a_code_of_tomorrow": 1_000}, False, FailureVerdict.ALIKE),
    ],
)
def test_first_rows_that_all_fail_alike_end_a_job(
    codes: dict[str, int], verdict: FailureVerdict | None, *, has_results: bool
) -> None:
    counts = FailureCounts(100_000, sum(codes.values()), has_results=has_results, codes=codes)
    assert judge(counts, FailureLimit()) is verdict
    assert judge(counts, FailureLimit.parse("99%")) is verdict
    assert judge(counts, FailureLimit.parse("100%")) is None


def test_codes_with_their_own_count_are_row_codes() -> None:
    assert set(failure_limit.CONCLUSIVE_ROWS) <= set(RowCode)
    assert max(failure_limit.CONCLUSIVE_ROWS.values()) < DEFAULT_CONCLUSIVE_ROWS


@given(value=LIMITS, total=st.integers(1, 3_000), failed=st.integers(0, 3_000))
def test_a_verdict_stands_when_more_rows_fail_or_planning_finishes(
    value: Any, total: int, failed: int
) -> None:
    limit, failed = FailureLimit.parse(value), min(failed, total)

    def verdict(count: int, rows_total: int | None = total) -> FailureVerdict | None:
        return judge(FailureCounts(rows_total, count, has_results=count < total), limit)

    if verdict(failed):
        assert all(verdict(more) for more in range(failed, total + 1))
    if verdict(failed, None):
        assert verdict(failed)


@given(value=LIMITS, total=st.integers(1, 3_000))
def test_a_job_without_failed_rows_succeeds_and_one_without_results_only_if_that_is_allowed(
    value: Any, total: int
) -> None:
    limit = FailureLimit.parse(value)
    assert judge(FailureCounts(total, 0, has_results=True), limit) is None
    all_failed = judge(FailureCounts(total, total, has_results=False), limit)
    assert (all_failed is None) == (limit.of(total) >= total)


def test_a_message_has_the_counts_by_code_an_example_and_what_to_do() -> None:
    errors = [
        RowErrorGroup("empty_text", 9, row=3, line=5, id="a", message="the text is empty"),
        RowErrorGroup("bad_json", 3, row=0, line=1, id=None, message="it is cut short"),
    ]
    counts = FailureCounts(100, 12, has_results=True)

    def message(
        verdict: FailureVerdict, limit: FailureLimit, errors: list[RowErrorGroup] = errors
    ) -> str:
        return failure_limit.message(verdict, counts, limit, errors=errors)

    assert message(FailureVerdict.OVER, FailureLimit(rows=10)) == (
        "12 rows failed, and max_failed allows 10: 9 empty_text, 3 bad_json; such as line 5: the "
        "text is empty; fix what makes them fail, or allow more with max_failed"
    )
    assert "max_failed allows 2.5%: 9" in message(FailureVerdict.OVER, FailureLimit.parse("2.5%"))
    assert message(FailureVerdict.ALL, FailureLimit(), errors[1:]).startswith(
        "all 12 rows failed: 3 bad_json; such as line 1: it is cut short; "
    )
    assert message(FailureVerdict.ALIKE, FailureLimit(), []).startswith(
        "the first 12 rows that were done all failed; "
    )
