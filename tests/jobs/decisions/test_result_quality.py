"""When a job whose rows did not fail carries a warning all the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.decisions.result_quality import Quality, warnings


@pytest.mark.parametrize(
    ("found", "codes"),
    [
        (Quality(), []),
        (Quality(rows=100, tokens=1_000), []),
        (Quality(rows=100, tokens=1_000, tokens_unknown=49), []),
        (Quality(rows=100, tokens=1_000, tokens_unknown=50), ["many_unknown_tokens"]),
        (Quality(rows=100, rows_truncated=9), []),
        (Quality(rows=100, rows_truncated=10), ["many_truncated_rows"]),
        (Quality(rows=100, rows_near_tie=4), []),
        (Quality(rows=100, rows_near_tie=5), ["many_near_ties"]),
        (
            Quality(1, 1, 1, tokens=3, tokens_unknown=1),
            ["many_unknown_tokens", "many_truncated_rows", "many_near_ties"],
        ),
    ],
)
def test_a_share_that_is_high_is_warned_of(found: Quality, codes: list[str]) -> None:
    assert [each.code for each in warnings(found, kind="classify")] == codes


def test_a_warning_has_the_numbers_and_what_to_do() -> None:
    found = Quality(rows=2_000, rows_truncated=500, tokens=3_000, tokens_unknown=1_000)
    unknown, cut = (each.message for each in warnings(found, kind="classify"))
    assert unknown.startswith(
        "33.3% (1,000 of 3,000) of the tokens that the model read are unknown"
    )
    assert "choose a model that was trained on the language of these texts" in unknown
    assert cut.startswith("25.0% (500 of 2,000) of the rows are longer")
    assert "long_texts stride" in cut
    assert "long_texts" not in warnings(found, kind="text2text")[1].message


@given(st.integers(1, 10**9), st.integers(1, 10**9), st.integers(1, 50))
def test_a_warning_hangs_on_shares_alone(part: int, whole: int, times: int) -> None:
    part = min(part, whole)
    small = Quality(rows=whole, rows_truncated=part)
    large = Quality(rows=times * whole, rows_truncated=times * part)
    assert bool(warnings(small, kind="embed")) == bool(warnings(large, kind="embed"))
