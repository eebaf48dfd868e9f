from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.decisions import promotion
from jobs.decisions.promotion import (
    MEASURES,
    Decision,
    Floors,
    Gate,
    LabelScores,
    RatedVersion,
    UnratedVersion,
)

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
        ("accuracy", 0.8, 0.7, 0.1, False),  # 0.7 + 0.1 is a little less than 0.8 in binary
        ("loss", 0.7, 0.8, 0.1, False),
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
    decision = promotion.decide(
        Gate("champion", metric, margin),
        candidate=RatedVersion("news@4", value),
        incumbent=incumbent,
    )
    assert not decision.promoted
    assert "champion stays as it is" in decision.reason
    assert math.isnan(value) or "cannot be compared with news@3" in decision.reason


@given(METRICS, VALUES, VALUES, MARGINS)
def test_the_alias_moves_if_and_only_if_it_is_free_or_its_version_is_worse(
    metric: str, new: float, old: float, margin: float
) -> None:
    def promoted(incumbent: RatedVersion | None) -> bool:
        return promotion.decide(
            Gate("champion", metric, margin),
            candidate=RatedVersion("news@4", new),
            incumbent=incumbent,
        ).promoted

    assert promoted(None)
    better = promotion.is_better(metric, new=new, old=old, margin=margin)
    assert promoted(RatedVersion("news@3", old)) is better


def test_a_metric_without_a_known_direction_is_refused() -> None:
    with pytest.raises(ValueError, match="metric must be one of accuracy"):
        promotion.is_better("acuracy", new=1, old=0)


def decide(value: float, incumbent: float | None, *, margin: float = 0.01) -> Decision:
    old = None if incumbent is None else RatedVersion("news@3", incumbent)
    gate = Gate("champion", "macro_f1", margin)
    return promotion.decide(gate, candidate=RatedVersion("news@4", value), incumbent=old)


def test_a_better_candidate_takes_the_alias_and_the_reason_has_both_values() -> None:
    assert decide(0.912, 0.894)[:2] == (
        True,
        "macro_f1 0.912 of news@4 beats 0.894 of news@3 by more than 0.01: champion moves",
    )


def test_a_worse_candidate_does_not_and_the_reason_has_both_values() -> None:
    promoted, reason, _ = decide(0.9, 0.894)
    assert not promoted
    assert reason == (
        "macro_f1 0.9 of news@4 does not beat 0.894 of news@3 by more than 0.01: "
        "champion stays as it is"
    )


def test_an_alias_that_points_nowhere_is_taken() -> None:
    promoted, reason, _ = decide(0.1, None)
    assert promoted
    assert reason == "champion pointed nowhere and takes macro_f1 0.1 of news@4 as the first"


def test_a_candidate_without_a_metric_does_not_take_a_free_alias() -> None:
    promoted, reason, _ = decide(NAN, None)
    assert not promoted
    assert reason == "macro_f1 nan of news@4 is not a number: champion stays as it is"


def test_an_incumbent_that_cannot_be_evaluated_is_named_with_the_reason() -> None:
    decision = promotion.decide(
        Gate("champion", "macro_f1"),
        candidate=RatedVersion("news@4", 0.9),
        incumbent=UnratedVersion("news@3", "it lacks the label 'poetry'"),
    )
    assert not decision.promoted
    assert decision.reason == (
        "macro_f1 0.9 of news@4 cannot be compared with news@3 (it lacks the label 'poetry'): "
        "champion stays as it is; set it by hand if the new version should have it"
    )


SCORES = st.floats(min_value=0, max_value=1)
LABELS = st.dictionaries(
    st.sampled_from(["news", "sport", "art"]),
    st.builds(
        LabelScores,
        rows=st.integers(min_value=0, max_value=40),
        measures=st.fixed_dictionaries(dict.fromkeys(MEASURES, SCORES)),
    ),
)
FLOORS = st.builds(
    Floors,
    drops=st.dictionaries(st.sampled_from(MEASURES), SCORES),
    least=st.dictionaries(st.sampled_from(MEASURES), SCORES),
    rows=st.integers(min_value=1, max_value=40),
)
GATES = st.builds(
    Gate,
    alias=st.just("champion"),
    metric=METRICS,
    margin=MARGINS,
    min_rows=st.integers(min_value=0, max_value=40),
    floors=FLOORS,
)
VERSIONS = st.builds(
    RatedVersion,
    version=st.sampled_from(["news@3", "news@4"]),
    value=st.floats(),
    rows=st.none() | st.integers(min_value=0, max_value=40),
    labels=st.none() | LABELS,
)
INCUMBENTS = st.none() | VERSIONS | st.just(UnratedVersion("news@3", "it is for generate"))


@given(GATES, VERSIONS, INCUMBENTS)
def test_what_is_promoted_has_passed_every_part_of_the_gate(
    gate: Gate, candidate: RatedVersion, incumbent: RatedVersion | UnratedVersion | None
) -> None:
    decision = promotion.decide(gate, candidate=candidate, incumbent=incumbent)
    assert ("stays as it is" in decision.reason) is not decision.promoted
    if not decision.promoted:
        return
    assert not math.isnan(candidate.value)
    assert (candidate.rows or 0) >= gate.min_rows
    assert decision.floors.breaches == ()
    assert candidate.labels is not None or not gate.floors
    if incumbent is not None:
        assert isinstance(incumbent, RatedVersion)
        assert promotion.is_better(
            gate.metric, new=candidate.value, old=incumbent.value, margin=gate.margin
        )


@given(GATES, VERSIONS)
def test_a_tie_never_wins(gate: Gate, version: RatedVersion) -> None:
    assert not promotion.decide(gate, candidate=version, incumbent=version).promoted


@given(GATES, VERSIONS, INCUMBENTS, st.sampled_from(MEASURES), SCORES, SCORES)
def test_a_stricter_floor_never_promotes_more(
    gate: Gate,
    candidate: RatedVersion,
    incumbent: RatedVersion | UnratedVersion | None,
    measure: str,
    least: float,
    drop: float,
) -> None:
    strict = dataclasses.replace(
        gate,
        floors=Floors(
            least={**gate.floors.least, measure: max(least, gate.floors.least.get(measure, 0))},
            drops={**gate.floors.drops, measure: min(drop, gate.floors.drops.get(measure, 1))},
            rows=gate.floors.rows,
        ),
    )
    if promotion.decide(strict, candidate=candidate, incumbent=incumbent).promoted:
        assert promotion.decide(gate, candidate=candidate, incumbent=incumbent).promoted


@given(GATES, VERSIONS, INCUMBENTS)
def test_what_is_held_back_is_not_promoted_and_the_reason_says_why(
    gate: Gate, candidate: RatedVersion, incumbent: RatedVersion | UnratedVersion | None
) -> None:
    held = dataclasses.replace(gate, held_back="the labels have drifted")
    decision = promotion.decide(held, candidate=candidate, incumbent=incumbent)
    assert not decision.promoted
    assert "the labels have drifted" in decision.reason


def scores(rows: int = 10, **measures: float) -> LabelScores:
    return LabelScores(rows, {"recall": 0.9, "precision": 0.9, "f1": 0.9, **measures})


def gated(
    floors: Floors, new: dict[str, LabelScores], old: dict[str, LabelScores], **gate: Any
) -> Decision:
    return promotion.decide(
        Gate("champion", "accuracy", floors=floors, **gate),
        candidate=RatedVersion("news@4", 0.9, 100, new),
        incumbent=RatedVersion("news@3", 0.8, 100, old),
    )


TWO_POINTS = Floors(drops={"recall": 0.02})


@pytest.mark.parametrize(("recall", "promoted"), [(0.95, True), (0.88, True), (0.879, False)])
def test_no_label_may_lose_more_than_its_floor_allows(recall: float, *, promoted: bool) -> None:
    decision = gated(TWO_POINTS, {"art": scores(recall=recall)}, {"art": scores()})
    assert decision.promoted is promoted


def test_the_reason_names_the_labels_that_lose_and_the_record_has_every_check() -> None:
    new = {"art": scores(recall=0.5), "news": scores()}
    decision = gated(TWO_POINTS, new, dict.fromkeys(new, scores()))
    assert decision.reason == (
        "accuracy 0.9 of news@4, but recall of 'art' falls from 0.9 to 0.5, by more than 0.02: "
        "champion stays as it is"
    )
    kept = decision.floors.as_json()
    assert (kept["checked"], kept["broken"]) == (2, 1)
    assert [(check["label"], check["passed"]) for check in kept["checks"]] == [
        ("art", False),
        ("news", True),
    ]


def test_a_least_value_is_asked_of_the_first_version_too() -> None:
    decision = promotion.decide(
        Gate("champion", "accuracy", floors=Floors(least={"f1": 0.5})),
        candidate=RatedVersion("news@1", 0.9, 10, {"art": scores(f1=0.4)}),
        incumbent=None,
    )
    assert not decision.promoted
    assert "f1 of 'art' is 0.4, below 0.5" in decision.reason


def test_a_label_with_too_few_rows_is_not_checked_and_is_named() -> None:
    floors = dataclasses.replace(TWO_POINTS, rows=5)
    decision = gated(floors, {"art": scores(4, recall=0.0)}, {"art": scores()})
    assert decision.promoted
    assert decision.floors.as_json()["unchecked"] == ["art"]


def test_a_label_that_the_incumbent_lacks_has_nothing_to_lose() -> None:
    assert gated(TWO_POINTS, {"new": scores(recall=0.1)}, {}).promoted


def test_too_few_rows_decide_nothing_not_even_about_a_free_alias() -> None:
    gate = Gate("champion", "accuracy", min_rows=50)
    candidate = RatedVersion("news@1", 0.9, 49)
    decision = promotion.decide(gate, candidate=candidate, incumbent=None)
    assert not decision.promoted
    assert decision.reason == (
        "only 49 rows decide, and min_rows asks for 50; accuracy 0.9 of news@1: champion stays as "
        "it is"
    )
    enough = dataclasses.replace(candidate, rows=50)
    assert promotion.decide(gate, candidate=enough, incumbent=None).promoted


def test_floors_without_measures_of_labels_are_not_kept() -> None:
    decision = promotion.decide(
        Gate("champion", "accuracy", floors=TWO_POINTS),
        candidate=RatedVersion("news@4", 0.9, 10, None),
        incumbent=None,
    )
    assert not decision.promoted
    assert "has no measures of labels" in decision.reason
