"""How many failed rows a job may have, and when that is certain."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.decisions import failure_limit
from jobs.decisions.failure_limit import (
    ENOUGH_OF_THE_CORPUS,
    Limit,
    RowErrors,
    Tally,
    Verdict,
    judge,
)
from jobs.kinds import ClassifySpec
from jobs.results.schemas import RowCode

LIMITS = st.one_of(
    st.none(),
    st.integers(0, 2_000),
    st.fractions(0, 1, max_denominator=100).map(lambda share: f"{float(100 * share):.2f}%"),
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, Limit()),
        (0, Limit(rows=0)),
        (1, Limit(rows=1)),
        (25, Limit(rows=25)),
        (25.0, Limit(rows=25)),
        ("25", Limit(rows=25)),
        (0.1, Limit(share=Fraction(1, 10))),
        ("0.1", Limit(share=Fraction(1, 10))),
        (1e-5, Limit(share=Fraction(1, 100_000))),
        ("10%", Limit(share=Fraction(1, 10))),
        (" 2.5 % ", Limit(share=Fraction(1, 40))),
        ("0%", Limit(share=Fraction(0))),
        ("100%", Limit(share=Fraction(1))),
    ],
)
def test_a_limit_is_a_share_or_a_number_of_rows(value: Any, expected: Limit) -> None:
    assert Limit.parse(value) == expected


@pytest.mark.parametrize(
    "value", ["", "many", "-1", "101%", "1.5", "%", "1e9", "1/3", "nan", -1, 1.5, True, [1]]
)
def test_anything_else_is_refused_and_told_what_it_must_be(value: Any) -> None:
    fields = {"corpus": {"uri": "file:///c.csv"}, "model": "/m", "max_failed": value}
    with pytest.raises(ValueError, match=r"must be a share, such as 0\.1 or 10%, or a whole"):
        ClassifySpec.model_validate(fields)


@pytest.mark.parametrize(
    ("limit", "total", "failed", "verdict"),
    [
        (None, 10, 9, None),
        (None, 10, 10, Verdict.ALL),
        (None, 1, 1, Verdict.ALL),
        (None, None, 10, None),  # planning goes on: others may follow
        ("100%", 10, 10, None),
        (3, 10, 3, None),
        (3, 10, 4, Verdict.OVER),
        (3, None, 4, Verdict.OVER),  # certain before the corpus is planned
        (0, 10, 1, Verdict.OVER),
        (20, 10, 10, None),  # the user said so
        ("10%", 100, 10, None),
        ("10%", 100, 11, Verdict.OVER),
        ("10%", None, 11, None),
        ("10%", 9, 1, Verdict.OVER),
        (0.29, 100, 29, None),  # as a float 0.29 is less than 29 of 100
        ("99%", 10, 10, Verdict.ALL),
    ],
)
def test_a_job_ends_once_more_rows_failed_than_may(
    limit: Any, total: int | None, failed: int, verdict: Verdict | None
) -> None:
    tally = Tally(rows_total=total, rows_failed=failed, has_results=failed != total)
    assert judge(tally, Limit.parse(limit)) is verdict


@pytest.mark.parametrize(
    ("codes", "has_results", "verdict"),
    [
        ({"row_crashed_worker": 10}, False, Verdict.ALIKE),
        ({"row_crashed_worker": 9}, False, None),
        ({"row_failed": 100, "bad_json": 3}, False, Verdict.ALIKE),
        ({"row_failed": 99, "not_finite": 99}, False, None),
        ({"row_failed": 100}, True, None),
        ({"empty_text": 999}, False, None),
        ({"empty_text": 1_000}, False, Verdict.ALIKE),
        ({"a_code_of_tomorrow": 1_000}, False, Verdict.ALIKE),
    ],
)
def test_first_rows_that_all_fail_alike_end_a_job(
    codes: dict[str, int], verdict: Verdict | None, *, has_results: bool
) -> None:
    tally = Tally(100_000, sum(codes.values()), has_results=has_results, codes=codes)
    assert judge(tally, Limit()) is verdict
    assert judge(tally, Limit.parse("99%")) is verdict
    assert judge(tally, Limit.parse("100%")) is None


def test_codes_with_a_number_of_their_own_are_codes_of_rows() -> None:
    assert set(failure_limit.ENOUGH) <= set(RowCode)
    assert max(failure_limit.ENOUGH.values()) < ENOUGH_OF_THE_CORPUS


@given(value=LIMITS, total=st.integers(1, 3_000), failed=st.integers(0, 3_000))
def test_what_is_certain_stays_so(value: Any, total: int, failed: int) -> None:
    """More failed rows never save a job, and a job that was planned later is judged no better."""
    limit, failed = Limit.parse(value), min(failed, total)

    def found(count: int, rows_total: int | None = total) -> Verdict | None:
        return judge(Tally(rows_total, count, has_results=count < total), limit)

    if found(failed):
        assert all(found(more) for more in range(failed, total + 1))
    if found(failed, None):
        assert found(failed)


@given(value=LIMITS, total=st.integers(1, 3_000))
def test_a_job_without_a_failed_row_ends_well_and_one_without_a_good_row_only_if_it_may(
    value: Any, total: int
) -> None:
    limit = Limit.parse(value)
    assert judge(Tally(total, 0, has_results=True), limit) is None
    all_failed = judge(Tally(total, total, has_results=False), limit)
    assert (all_failed is None) == (limit.of(total) >= total)


def test_a_message_has_the_counts_by_code_an_example_and_what_to_do() -> None:
    errors = [
        RowErrors("empty_text", 9, row=3, line=5, id="a", message="the text is empty"),
        RowErrors("bad_json", 3, row=0, line=1, id=None, message="it is cut short"),
    ]
    tally = Tally(100, 12, has_results=True)
    assert failure_limit.message(Verdict.OVER, tally, Limit(rows=10), errors=errors) == (
        "12 rows failed, and max_failed allows 10: 9 empty_text, 3 bad_json; such as line 5: the "
        "text is empty; mend what they fail for, or allow more with max_failed"
    )
    assert "max_failed allows 2.5%: 9" in failure_limit.message(
        Verdict.OVER, tally, Limit.parse("2.5%"), errors=errors
    )
    assert failure_limit.message(Verdict.ALL, tally, Limit(), errors=errors[1:]).startswith(
        "all 12 rows failed: 3 bad_json; such as line 1: it is cut short; "
    )
    assert failure_limit.message(Verdict.ALIKE, tally, Limit(), errors=[]).startswith(
        "the first 12 rows that were done all failed; "
    )
