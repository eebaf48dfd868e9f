"""What becomes of a chunk whose worker died."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from jobs.decisions import crashing
from jobs.decisions.crashing import Verdict

ranges = st.tuples(st.integers(0, 10**9), st.integers(2, 100_000))


@given(ranges)
def test_two_halves_are_exactly_the_whole_and_neither_is_empty(whole: tuple[int, int]) -> None:
    first_row, rows = whole
    (first, left), (second, right) = crashing.halves(first_row=first_row, rows=rows)
    assert first == first_row
    assert second == first + left
    assert left + right == rows
    assert min(left, right) >= 1
    assert abs(left - right) <= 1


@given(st.integers(1, 100_000).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n - 1))))
def test_a_deadly_row_among_n_is_found_within_log2_n_and_three_deaths(
    place: tuple[int, int],
) -> None:
    rows, deadly = place
    first, crashes, deaths = 0, 0, 0
    while True:
        deaths, crashes = deaths + 1, crashes + 1
        verdict = crashing.judge(rows=rows, crashes=crashes)
        if verdict is Verdict.CONDEMN:
            break
        if verdict is Verdict.SPLIT:
            halves = crashing.halves(first_row=first, rows=rows)
            first, rows = next(half for half in halves if half[0] <= deadly < sum(half))
            crashes = crashing.inherited(rows=rows)
    assert (first, rows) == (deadly, 1)
    assert deaths <= math.ceil(math.log2(max(2, place[0]))) + 3


@given(st.integers(1, 1_000))
def test_one_death_alone_condemns_nothing(rows: int) -> None:
    assert crashing.judge(rows=rows, crashes=1) is Verdict.AGAIN


@given(st.integers(2, 50))
def test_a_single_row_that_kills_on_stays_condemned(crashes: int) -> None:
    assert crashing.judge(rows=1, crashes=crashes) is Verdict.CONDEMN
