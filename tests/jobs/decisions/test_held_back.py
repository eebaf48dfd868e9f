"""The newest rows of a corpus: how many, and where they begin."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.decisions import held_back
from jobs.decisions.held_back import HeldBack


@pytest.mark.parametrize(
    ("written", "total", "rows"),
    [
        (100, 1000, 100),
        ("100", 50, 100),
        (0.1, 1000, 100),
        ("10%", 1000, 100),
        ("2.5 %", 1000, 25),
        (0.1, 3, 1),
        (0.1, 0, 0),
    ],
)
def test_a_share_or_a_number_of_rows(written: object, total: int, rows: int) -> None:
    assert HeldBack.parse(written).of(total) == rows


@pytest.mark.parametrize("written", [0, 1.5, -1, "0%", "100%", "half", True, "", None, [1], "1e9"])
def test_anything_else_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="newest must be a share, such as"):
        HeldBack.parse(written)


@given(st.lists(st.integers(min_value=1, max_value=9), max_size=6), st.integers(0, 60))
def test_the_cut_leaves_all_rows_but_the_newest(shards: list[int], newest: int) -> None:
    cut = held_back.cut(shards, newest=newest)
    assert sum(shards[: cut.whole]) + cut.rows == max(0, sum(shards) - newest)
    assert cut.rows == 0 or cut.rows < shards[cut.whole]
