from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.decisions import promotion
from jobs.decisions.promotion import RatedVersion, UnratedVersion

METRICS = st.sampled_from(sorted(promotion.HIGHER | promotion.LOWER))
VALUES = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e6, max_value=1e6)
MARGINS = st.floats(min_value=0, max_value=1e3)
NAN = float("nan")


@pytest.mark.parametrize(
    ("metric", "new", "old", "margin", "better"),
    [
        ("accuracy", 0.91, 0.90, 0.0, True),
        ("accuracy", 0.90, 0.90, 0.0, False),
        ("accuracy", 0.91, 0.90, 0.02, False),
        ("accuracy", 0.75, 0.5, 0.25, False),
        ("macro_f1", 0.5, 0.6, 0.0, False),
        ("loss", 0.3, 0.4, 0.0, True),
        ("loss", 0.4, 0.3, 0.0, False),
        ("loss", 0.39, 0.4, 0.05, False),
        ("perplexity", 20.0, math.inf, 1.0, True),
        ("perplexity", math.inf, math.inf, 0.0, False),
        ("bleu", 31.0, 30.0, 0.5, True),
        ("accuracy", NAN, 0.1, 0.0, False),
        ("loss", NAN, 9.0, 0.0, False),
        ("loss", 9.0, NAN, 0.0, False),
        ("accuracy", 1.0, NAN, 0.0, False),
        ("loss", NAN, NAN, 0.0, False),
    ],
)
def test_better_is_by_more_than_the_margin_in_the_metrics_direction(
    *, metric: str, new: float, old: float, margin: float, better: bool
) -> None:
    assert promotion.is_better(metric, new=new, old=old, margin=margin) is better


@given(METRICS, VALUES, VALUES, MARGINS)
def test_of_two_values_at_most_one_is_better(
    metric: str, one: float, other: float, margin: float
) -> None:
    both = [
        promotion.is_better(metric, new=one, old=other, margin=margin),
        promotion.is_better(metric, new=other, old=one, margin=margin),
    ]
    assert not all(both)


@given(METRICS, VALUES, VALUES, MARGINS, MARGINS)
def test_a_value_that_loses_never_wins_with_a_larger_margin(
    metric: str, new: float, old: float, margin: float, more: float
) -> None:
    if promotion.is_better(metric, new=new, old=old, margin=margin + more):
        assert promotion.is_better(metric, new=new, old=old, margin=margin)


@given(METRICS, st.floats(), MARGINS)
def test_nan_never_wins_and_is_never_beaten(metric: str, other: float, margin: float) -> None:
    assert not promotion.is_better(metric, new=NAN, old=other, margin=margin)
    assert not promotion.is_better(metric, new=other, old=NAN, margin=margin)


@given(
    METRICS,
    st.floats(),
    MARGINS,
    st.sampled_from([UnratedVersion("news@3", "it is for generate"), RatedVersion("news@3", NAN)]),
)
def test_an_incumbent_without_a_metric_keeps_its_alias_and_the_reason_names_it(
    metric: str, value: float, margin: float, incumbent: RatedVersion | UnratedVersion
) -> None:
    promoted, reason = promotion.decide(
        alias="champion",
        metric=metric,
        margin=margin,
        candidate=RatedVersion("news@4", value),
        incumbent=incumbent,
    )
    assert not promoted
    assert "champion stays as it is" in reason
    assert math.isnan(value) or "cannot be compared with news@3" in reason


@given(METRICS, VALUES, VALUES, MARGINS)
def test_the_alias_moves_if_and_only_if_it_is_free_or_its_version_is_worse(
    metric: str, new: float, old: float, margin: float
) -> None:
    def promoted(incumbent: RatedVersion | None) -> bool:
        return promotion.decide(
            alias="champion",
            metric=metric,
            margin=margin,
            candidate=RatedVersion("news@4", new),
            incumbent=incumbent,
        ).promoted

    assert promoted(None)
    better = promotion.is_better(metric, new=new, old=old, margin=margin)
    assert promoted(RatedVersion("news@3", old)) is better


def test_a_metric_without_a_known_direction_is_refused() -> None:
    with pytest.raises(ValueError, match="metric must be one of accuracy"):
        promotion.is_better("acuracy", new=1, old=0)


def decide(value: float, incumbent: float | None, *, margin: float = 0.01) -> promotion.Decision:
    old = None if incumbent is None else RatedVersion("news@3", incumbent)
    return promotion.decide(
        alias="champion",
        metric="macro_f1",
        margin=margin,
        candidate=RatedVersion("news@4", value),
        incumbent=old,
    )


def test_a_better_candidate_takes_the_alias_and_the_reason_has_both_values() -> None:
    assert decide(0.912, 0.894) == (
        True,
        "macro_f1 0.912 of news@4 beats 0.894 of news@3 by more than 0.01: champion moves",
    )


def test_a_worse_candidate_does_not_and_the_reason_has_both_values() -> None:
    promoted, reason = decide(0.9, 0.894)
    assert not promoted
    assert reason == (
        "macro_f1 0.9 of news@4 does not beat 0.894 of news@3 by more than 0.01: "
        "champion stays as it is"
    )


def test_an_alias_that_points_nowhere_is_taken() -> None:
    promoted, reason = decide(0.1, None)
    assert promoted
    assert reason == "champion pointed nowhere and takes macro_f1 0.1 of news@4 as the first"


def test_a_candidate_without_a_metric_does_not_take_a_free_alias() -> None:
    promoted, reason = decide(NAN, None)
    assert not promoted
    assert reason == "macro_f1 nan of news@4 is not a number: champion stays as it is"


def test_an_incumbent_that_cannot_be_evaluated_is_named_with_the_reason() -> None:
    decision = promotion.decide(
        alias="champion",
        metric="macro_f1",
        margin=0.0,
        candidate=RatedVersion("news@4", 0.9),
        incumbent=UnratedVersion("news@3", "it lacks the label 'poetry'"),
    )
    assert not decision.promoted
    assert decision.reason == (
        "macro_f1 0.9 of news@4 cannot be compared with news@3 (it lacks the label 'poetry'): "
        "champion stays as it is; set it by hand if the new version should have it"
    )
