"""What becomes of a chunk whose worker died."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.decisions import crash_policy
from jobs.decisions.crash_policy import Phase, Verdict

ranges = st.tuples(st.integers(0, 10**9), st.integers(2, 100_000))


@given(ranges)
def test_two_halves_are_exactly_the_whole_and_neither_is_empty(whole: tuple[int, int]) -> None:
    first_row, rows = whole
    (first, left), (second, right) = crash_policy.halves(first_row=first_row, rows=rows)
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
        verdict = crash_policy.judge(rows=rows, crashes=crashes)
        if verdict is Verdict.CONDEMN:
            break
        if verdict is Verdict.SPLIT:
            halves = crash_policy.halves(first_row=first, rows=rows)
            first, rows = next(half for half in halves if half[0] <= deadly < sum(half))
            crashes = crash_policy.inherited(rows=rows)
    assert (first, rows) == (deadly, 1)
    assert deaths <= math.ceil(math.log2(max(2, place[0]))) + 3


@given(st.integers(1, 1_000))
def test_one_death_alone_condemns_nothing(rows: int) -> None:
    assert crash_policy.judge(rows=rows, crashes=1) is Verdict.AGAIN


@given(st.integers(2, 50))
def test_a_single_row_that_kills_on_stays_condemned(crashes: int) -> None:
    assert crash_policy.judge(rows=1, crashes=crashes) is Verdict.CONDEMN


@pytest.mark.parametrize(
    ("phase", "crashes", "verdict"),
    [
        (Phase.LOAD, 1, Verdict.AGAIN),
        (Phase.LOAD, 2, Verdict.FAIL),
        (Phase.TEMPLATE, 1, Verdict.FAIL),
        (Phase.TOKENIZER, 1, Verdict.FAIL),
    ],
)
def test_a_death_before_the_first_row_is_the_models(
    phase: Phase, crashes: int, verdict: Verdict
) -> None:
    assert crash_policy.judge_load(phase, crashes=crashes) is verdict


@pytest.mark.parametrize(
    ("phase", "timed_out", "code"),
    [
        (Phase.LOAD, True, "model_load_timeout"),
        (Phase.TEMPLATE, True, "template_timeout"),
        (Phase.TOKENIZER, True, "tokenizer_timeout"),
        (Phase.LOAD, False, "model_ends_worker"),
        (Phase.TOKENIZER, False, "model_ends_worker"),
    ],
)
def test_the_code_names_what_came_to_no_end(phase: Phase, timed_out: bool, code: str) -> None:  # noqa: FBT001
    found, message = crash_policy.load_failure(phase, timed_out=timed_out, reason="signal 9")
    assert found == code
    assert "signal 9" in message
