"""When a job without failed rows still has a warning."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.decisions.result_quality import QualityCounts, warnings


@pytest.mark.parametrize(
    ("counts", "codes"),
    [
        (QualityCounts(), []),
        (QualityCounts(rows=100, tokens=1_000), []),
        (QualityCounts(rows=100, tokens=1_000, tokens_unknown=49), []),
        (QualityCounts(rows=100, tokens=1_000, tokens_unknown=50), ["many_unknown_tokens"]),
        (QualityCounts(rows=100, rows_truncated=9), []),
        (QualityCounts(rows=100, rows_truncated=10), ["many_truncated_rows"]),
        (QualityCounts(rows=100, rows_near_tie=4), []),
        (QualityCounts(rows=100, rows_near_tie=5), ["many_near_ties"]),
        (
            QualityCounts(1, 1, 1, tokens=3, tokens_unknown=1),
            ["many_unknown_tokens", "many_truncated_rows", "many_near_ties"],
        ),
    ],
)
def test_a_high_share_is_warned_of(counts: QualityCounts, codes: list[str]) -> None:
    assert [warning.code for warning in warnings(counts, windows=True)] == codes


def test_a_warning_has_the_counts_and_what_to_do() -> None:
    counts = QualityCounts(rows=2_000, rows_truncated=500, tokens=3_000, tokens_unknown=1_000)
    unknown, truncated = (each.message for each in warnings(counts, windows=True))
    assert unknown.startswith(
        "33.3% (1,000 of 3,000) of the tokens that the model read are unknown"
    )
    assert "choose a model that was trained on the language of these texts" in unknown
    assert truncated.startswith("25.0% (500 of 2,000) of the rows are longer")
    assert "long_texts stride" in truncated
    assert "long_texts" not in warnings(counts, windows=False)[1].message


@given(st.integers(1, 10**9), st.integers(1, 10**9), st.integers(1, 50))
def test_a_warning_depends_on_shares_alone(part: int, whole: int, times: int) -> None:
    part = min(part, whole)
    small = QualityCounts(rows=whole, rows_truncated=part)
    large = QualityCounts(rows=times * whole, rows_truncated=times * part)
    assert bool(warnings(small, windows=True)) == bool(warnings(large, windows=True))
