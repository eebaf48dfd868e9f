from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from workers.inference.heads.label_decision import (
    Activation,
    Floats,
    LabelDecisions,
    LabelRule,
    decide,
)

SINGLE = LabelRule(
    activation=Activation.SOFTMAX,
    multi_label=False,
    all_scores=False,
    top_k=1,
    threshold=0.5,
    tolerance=1e-3,
)
MULTI = replace(SINGLE, activation=Activation.SIGMOID, multi_label=True)


def decided(*rows: list[float], rule: LabelRule = SINGLE) -> LabelDecisions:
    """Decisions for rows of one window each."""
    return decide(np.array(rows), starts=range(len(rows)), rule=rule)


def shown(decisions: LabelDecisions, row: int = 0) -> list[int]:
    return [int(label) for label in decisions.order[row, : decisions.shown[row]]]


def test_the_best_label_is_the_largest_logit() -> None:
    assert shown(decided([1.0, 3.0, 2.0])) == [1]


def test_scores_of_a_single_label_add_up_to_one() -> None:
    scores = decided([1.0, 3.0, 2.0]).scores[0]
    assert scores == pytest.approx([0.0900, 0.6652, 0.2447], abs=1e-4)


def test_top_k_labels_are_best_first_and_no_more_than_there_are() -> None:
    assert shown(decided([1.0, 3.0, 2.0], rule=replace(SINGLE, top_k=2))) == [1, 2]
    assert shown(decided([1.0, 3.0, 2.0], rule=replace(SINGLE, top_k=9))) == [1, 2, 0]


def test_multi_label_shows_what_reaches_the_threshold() -> None:
    assert shown(decided([2.0, -1.0, 3.0], rule=MULTI)) == [2, 0]
    assert shown(decided([-2.0, -1.0, -3.0], rule=MULTI)) == []


def test_all_scores_show_every_label_even_under_the_threshold() -> None:
    assert shown(decided([2.0, -1.0, 3.0], rule=replace(MULTI, all_scores=True))) == [2, 0, 1]


def test_cosines_are_the_scores() -> None:
    rule = replace(SINGLE, activation=Activation.COSINE)
    decisions = decided([0.25, -0.5, 0.5], rule=rule)
    assert (shown(decisions), decisions.scores[0].tolist()) == ([2], [0.25, -0.5, 0.5])


def test_windows_of_a_row_are_averaged_as_probabilities() -> None:
    logits = np.array([[0.0, 0.0], [9.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
    decisions = decide(logits, starts=[0, 1, 2], rule=SINGLE)
    assert decisions.scores[2] == pytest.approx([0.5, 0.5])


def test_a_near_tie_is_not_settled_and_a_clear_answer_is() -> None:
    assert decided([1.0, 1.0005], [1.0, 1.1]).settled.tolist() == [False, True]


def test_the_tolerance_grows_with_the_logits() -> None:
    assert decided([50.0, 50.03], [1.0, 1.03]).settled.tolist() == [False, True]


def test_a_near_tie_below_the_last_label_shown_does_not_matter() -> None:
    assert decided([3.0, 1.0, 1.0]).settled.tolist() == [True]
    assert decided([3.0, 1.0, 1.0], rule=replace(SINGLE, top_k=2)).settled.tolist() == [False]


def test_a_score_near_the_threshold_is_not_settled() -> None:
    assert decided([2.0, 0.0005], [2.0, 0.1], rule=MULTI).settled.tolist() == [False, True]


def test_labels_that_are_equal_to_the_last_places_keep_their_order() -> None:
    assert shown(decided([1.0, 1.0 + 1e-9, 1.0 - 1e-9], rule=replace(SINGLE, top_k=3))) == [0, 1, 2]


@pytest.mark.parametrize(("apart", "best"), [(2**-22, 0), (1.28e-6, 1)])
def test_what_float32_distinguishes_is_decided_and_only_the_last_places_are_not(
    apart: float, best: int
) -> None:
    rule = replace(SINGLE, activation=Activation.COSINE, tolerance=1e-4)
    assert shown(decided([0.5, 0.5 + apart], rule=rule)) == [best]


def test_a_logit_that_is_not_finite_spoils_its_own_row_only() -> None:
    decisions = decided([1.0, float("nan")], [1.0, 2.0], [float("inf"), 0.0])
    assert decisions.finite.tolist() == [False, True, False]
    assert decisions.settled.tolist() == [False, True, False]


def test_saturated_scores_still_have_an_order() -> None:
    decisions = decided([30.0, 33.0, -700.0], rule=replace(MULTI, all_scores=True))
    assert shown(decisions) == [1, 0, 2]


RULES = st.builds(
    LabelRule,
    activation=st.sampled_from(Activation),
    multi_label=st.booleans(),
    all_scores=st.booleans(),
    top_k=st.integers(1, 4),
    threshold=st.floats(0.05, 0.95),
    tolerance=st.just(1e-3),
)
LOGITS = st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=3)


@given(RULES, st.lists(LOGITS, min_size=1, max_size=4), st.integers(0, 2**32 - 1))
def test_a_difference_within_the_tolerance_never_changes_a_settled_answer(
    rule: LabelRule, windows: list[list[float]], seed: int
) -> None:
    assume(not (rule.multi_label and rule.activation is Activation.SOFTMAX))
    logits: Floats = np.array(windows)
    shaken = logits + np.random.default_rng(seed).uniform(-1, 1, logits.shape) * rule.tolerance / 5
    before = decide(logits, starts=[0], rule=rule)
    after = decide(shaken, starts=[0], rule=rule)
    assert not before.settled[0] or shown(before) == shown(after)
