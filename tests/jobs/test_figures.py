"""Numbers and times as the tabs show them."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs import figures


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (math.inf, "-"),
        (-3, "0 s"),
        (0.9, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (61.5, "1 min 1 s"),
        (7_500, "2 h 5 min"),
        (86_400, "1 d"),
        (timedelta(days=400, hours=1), "400 d 1 h"),
    ],
)
def test_a_span_has_its_two_largest_units(seconds: float | timedelta | None, text: str) -> None:
    assert figures.span(seconds) == text


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (None, "-"),
        (0.0, "0.0 rows/s"),
        (0.25, "15.0 rows/min"),
        (2.5, "2.5 rows/s"),
        (1234.4, "1,234 rows/s"),
        (math.nan, "-"),
    ],
)
def test_a_rate(rate: float | None, text: str) -> None:
    assert figures.rate(rate, unit="rows") == text


@pytest.mark.parametrize(
    ("number", "text"), [(None, "-"), (0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB")]
)
def test_a_size(number: int | None, text: str) -> None:
    assert figures.size(number) == text


def test_a_moment_is_in_utc() -> None:
    assert figures.moment(datetime(2026, 11, 30, 17, 41, 46, 5, UTC)) == "2026-11-30 17:41:46 UTC"
    assert figures.moment(None) == "-"


@given(st.floats(), st.none() | st.floats())
def test_a_percentage_is_between_0_and_100_or_unknown(done: float, total: float | None) -> None:
    found = figures.percent(done, total)
    assert found is None or 0 <= found <= 100


@given(
    st.integers(1, 10**12).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total)))
)
def test_only_what_is_done_has_100_percent(progress: tuple[int, int]) -> None:
    done, total = progress
    assert (figures.percent(done, total) == 100) is (done == total)


@given(st.floats())
def test_every_number_of_seconds_has_words(seconds: float) -> None:
    assert figures.span(seconds)
