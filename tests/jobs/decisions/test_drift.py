"""Drift: the population stability index of the results of a job and of earlier ones."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.decisions import drift
from jobs.decisions.drift import Profile, Spread

BINS = st.dictionaries(st.sampled_from("abcdef"), st.integers(min_value=0, max_value=10_000))


def profile(**labels: int) -> Profile:
    return Profile(labels=Spread(labels))


@given(BINS, BINS)
def test_the_index_is_never_negative_and_the_same_both_ways(
    one: dict[str, int], other: dict[str, int]
) -> None:
    found = drift.psi(one, other)
    assert found >= -1e-12
    assert math.isfinite(found)
    assert math.isclose(found, drift.psi(other, one), abs_tol=1e-9)


@given(BINS)
def test_equal_spreads_have_an_index_of_zero(bins: dict[str, int]) -> None:
    assert math.isclose(drift.psi(bins, bins), 0, abs_tol=1e-12)


def test_the_index_is_that_of_the_formula() -> None:
    found = drift.psi({"a": 8_000, "b": 2_000}, {"a": 5_000, "b": 5_000})
    by_hand = (0.5 - 0.8) * math.log(0.5 / 0.8) + (0.5 - 0.2) * math.log(0.5 / 0.2)
    assert math.isclose(found, by_hand, rel_tol=1e-3)


def test_a_job_that_is_spread_otherwise_has_drifted_and_the_words_say_by_what() -> None:
    earlier = [profile(good=80, bad=20)] * 3
    verdict = drift.compare(profile(good=20, bad=80), earlier, threshold=0.2)
    assert verdict.drifted
    assert verdict.against == 3
    assert verdict.words.startswith("labels PSI 1.")
    assert not drift.compare(profile(good=78, bad=22), earlier, threshold=0.2).drifted


def test_means_and_shares_stand_beside_the_index() -> None:
    before = Profile(
        scores=Spread({"0.9": 100}, 92.0), errors=Spread({"good": 99, "failed": 1}, 1.0)
    )
    now = Profile(scores=Spread({"0.5": 100}, 54.0), errors=Spread({"good": 70, "failed": 30}, 30))
    verdict = drift.compare(now, [before, before], threshold=0.2)
    assert (verdict.measures["scores"].before, verdict.measures["scores"].now) == (0.92, 0.54)
    assert (verdict.measures["errors"].before, verdict.measures["errors"].now) == (0.01, 0.3)
    assert "scores PSI" in verdict.words
    assert "errors PSI" in verdict.words


@pytest.mark.parametrize(
    ("now", "earlier", "words"),
    [
        (profile(a=9), [], "there is no earlier one"),
        (profile(a=9), [profile(b=900)], "fewer than 100 rows cannot be compared"),
        (profile(a=900), [profile(b=9)], "fewer than 100 rows cannot be compared"),
    ],
)
def test_too_little_is_not_compared(now: Profile, earlier: list[Profile], words: str) -> None:
    verdict = drift.compare(now, earlier, threshold=0.2, min_rows=100)
    assert (verdict.drifted, verdict.words) == (False, words)


@given(BINS, BINS, st.floats(min_value=0, max_value=1e6))
def test_a_profile_is_read_again_as_it_was_stored(
    labels: dict[str, int], lengths: dict[str, int], total: float
) -> None:
    made = Profile(labels=Spread(labels), lengths=Spread(lengths, total))
    again = Profile.from_json(made.as_json())
    for name in drift.MEASURES:
        if getattr(made, name).rows:
            assert getattr(again, name) == getattr(made, name)


def test_a_group_has_drifted_if_a_member_has_in_the_words_of_those_that_have() -> None:
    usual = [profile(good=80, bad=20)]
    drifted = drift.compare(profile(good=20, bad=80), usual, threshold=0.2)
    other = drift.compare(profile(good=80, bad=20), usual * 2, threshold=0.2)
    both = drift.together({"label": drifted, "score": other})
    assert (both.drifted, both.against, both.measures) == (True, 2, {})
    assert both.words == f"label: {drifted.words}"
    calm = drift.together({"a": other, "b": other})
    assert (calm.drifted, calm.words) == (False, f"a: {other.words}; b: {other.words}")
