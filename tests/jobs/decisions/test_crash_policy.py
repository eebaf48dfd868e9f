"""What happens to a chunk whose worker died."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.decisions import crash_policy
from jobs.decisions.crash_policy import CrashVerdict, Phase

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
def test_a_poison_row_among_n_is_found_within_log2_n_and_three_deaths(
    corpus: tuple[int, int],
) -> None:
    rows, poison = corpus
    first, crashes, deaths = 0, 0, 0
    while True:
        deaths, crashes = deaths + 1, crashes + 1
        verdict = crash_policy.judge(rows=rows, crashes=crashes)
        if verdict is CrashVerdict.CONDEMN:
            break
        if verdict is CrashVerdict.SPLIT:
            halves = crash_policy.halves(first_row=first, rows=rows)
            first, rows = next(half for half in halves if half[0] <= poison < sum(half))
            crashes = crash_policy.inherited_crashes(rows=rows)
    assert (first, rows) == (poison, 1)
    assert deaths <= math.ceil(math.log2(max(2, corpus[0]))) + 3


@given(st.integers(1, 1_000))
def test_one_death_alone_condemns_nothing(rows: int) -> None:
    assert crash_policy.judge(rows=rows, crashes=1) is CrashVerdict.RETRY


@given(st.integers(2, 50))
def test_a_single_row_that_kills_on_stays_condemned(crashes: int) -> None:
    assert crash_policy.judge(rows=1, crashes=crashes) is CrashVerdict.CONDEMN


@pytest.mark.parametrize(
    ("phase", "crashes", "verdict"),
    [
        (Phase.LOAD, 1, CrashVerdict.RETRY),
        (Phase.LOAD, 2, CrashVerdict.FAIL_JOB),
        (Phase.TEMPLATE, 1, CrashVerdict.FAIL_JOB),
        (Phase.TOKENIZER, 1, CrashVerdict.FAIL_JOB),
    ],
)
def test_a_death_before_the_first_row_is_the_fault_of_the_model(
    phase: Phase, crashes: int, verdict: CrashVerdict
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
def test_the_code_names_the_phase(phase: Phase, timed_out: bool, code: str) -> None:  # noqa: FBT001
    job_code, message = crash_policy.load_failure(phase, timed_out=timed_out, reason="signal 9")
    assert job_code == code
    assert "signal 9" in message
