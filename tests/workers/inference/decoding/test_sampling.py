"""Sampling of the next token, against the logits warpers of transformers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from workers.inference.decoding.sampling import (
    NUCLEUS_CANDIDATES,
    ROUNDING_TOLERANCE,
    Sampling,
    StepRange,
    TokenChoiceProcessor,
    draw,
    gumbel,
)

VOCABULARY = 12
Line = np.ndarray[tuple[int, ...], np.dtype[np.float32]]
NO_IDS = torch.zeros((1, 1), dtype=torch.long)


def sampling(**given: float) -> Sampling:
    return Sampling(**{"temperature": 1.0, "top_p": 1.0, "top_k": 0, "seed": 0, **given})  # type: ignore[arg-type]


def warped(scores: torch.Tensor, how: Sampling) -> torch.Tensor:
    """Scores after the warpers; minus infinity for tokens that may not be sampled."""
    scores = TemperatureLogitsWarper(how.temperature)(NO_IDS, scores)
    if how.top_k:
        scores = TopKLogitsWarper(how.top_k)(NO_IDS, scores)
    if how.top_p < 1:
        scores = TopPLogitsWarper(how.top_p)(NO_IDS, scores)
    return scores


lines = arrays.arrays(np.float32, (3, VOCABULARY), elements=st.floats(-8, 8, width=32), unique=True)
settings_of_rows = st.builds(
    Sampling,
    temperature=st.sampled_from([0.3, 1.0, 2.0]),
    top_p=st.sampled_from([0.5, 0.9, 1.0]),
    top_k=st.sampled_from([0, 1, 3, VOCABULARY, 50]),
    seed=st.just(0),
)
seeds = st.lists(st.integers(0, 2**32 - 1), min_size=3, max_size=3)


@given(line=lines, how=settings_of_rows, drawn=seeds)
@settings(max_examples=300)
def test_a_choice_without_doubt_is_the_largest_sum_that_transformers_keeps(
    line: Line, how: Sampling, drawn: list[int]
) -> None:
    scores = torch.from_numpy(line)
    noise = gumbel(drawn, like=scores)
    chosen, doubt = draw(scores, noise, how)
    expected = (warped(scores, how) + noise).argmax(dim=1)
    assert chosen[~doubt].tolist() == expected[~doubt].tolist()


steps = st.integers(-16, 16).map(lambda number: number / 4)
near = arrays.arrays(np.float32, (3, VOCABULARY), elements=steps)
moves = arrays.arrays(np.float32, (3, VOCABULARY), elements=st.floats(-0.5, 0.5, width=32))


@given(line=near, how=settings_of_rows, noise=near, move=moves, offset=st.sampled_from([0.0, 40.0]))
@settings(max_examples=500)
def test_a_movement_within_the_noise_changes_no_choice_without_doubt(
    line: Line, how: Sampling, noise: Line, move: Line, offset: float
) -> None:
    scores = torch.from_numpy(line) + offset
    slack = ROUNDING_TOLERANCE * scores.amax(dim=1, keepdim=True).abs().clamp(min=1.0)
    chosen, doubt = draw(scores, torch.from_numpy(noise), how)
    moved = scores + 0.98 * slack * torch.from_numpy(move)
    again, _ = draw(moved, torch.from_numpy(noise), how)
    assert chosen[~doubt].tolist() == again[~doubt].tolist()


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
def test_sums_that_differ_by_less_than_the_noise_are_in_doubt(temperature: float) -> None:
    margin = ROUNDING_TOLERANCE * 40 / temperature
    noise = torch.tensor([[1.0, 1.0 - 0.9 * margin, 0.0], [1.0, 1.0 - 1.1 * margin, 0.0]])
    scores = torch.tensor([[40.0, 40.0, 1.0]]).expand(2, -1)
    _, doubt = draw(scores, noise, sampling(temperature=temperature))
    assert doubt.tolist() == [True, False]


def test_at_a_low_temperature_small_movements_shift_a_nucleus() -> None:
    scores = torch.tensor([[10.0, 10 - 0.05 * math.log(9)]])  # chances 0.9 and 0.1
    noise = torch.tensor([[0.0, 9.0]])
    how = sampling(temperature=0.05, top_p=0.9002)
    moved, _ = draw(scores + torch.tensor([[1e-4, -1e-4]]), noise, how)
    chosen, doubt = draw(scores, noise, how)
    assert chosen.tolist() != moved.tolist()
    assert doubt.tolist() == [True]


def test_noise_is_finite_where_a_sample_would_be_rounded_to_one() -> None:
    assert gumbel([6], like=torch.empty(1, 2_000_000)).isfinite().all()


@pytest.mark.parametrize("how", [{}, {"temperature": 0.5}, {"top_k": 4}, {"top_p": 0.7}])
def test_tokens_are_as_frequent_as_their_probability_in_transformers(how: dict[str, float]) -> None:
    scores = torch.randn((1, VOCABULARY), generator=torch.Generator().manual_seed(0))
    many, count = sampling(**how), 20_000
    drawn = torch.cat([gumbel([seed], like=scores) for seed in many.seeds(3, steps=count)])
    chosen, _ = draw(scores.expand(count, -1), drawn, many)
    seen = torch.bincount(chosen, minlength=VOCABULARY).double() / count
    chances = warped(scores, many).softmax(dim=1)[0].double()
    error = (chances * (1 - chances) / count).sqrt()  # of the share that is seen
    assert ((seen - chances).abs() <= 5 * error).all()


def test_of_many_tokens_with_small_chances_few_choices_are_in_doubt() -> None:
    scores = torch.randn((200, 50_000), generator=torch.Generator().manual_seed(0))
    many = sampling()
    chosen, doubt = draw(scores, gumbel(many.seeds(0, steps=200), like=scores), many)
    assert len(set(chosen.tolist())) > 150
    assert doubt.sum() < 4


@given(share=st.floats(0.001, 0.999), drawn=st.integers(0, 2**32 - 1), spread=st.floats(0.01, 8))
@settings(max_examples=50)
def test_a_nucleus_is_found_among_the_likeliest_or_among_all(
    share: float, drawn: int, spread: float
) -> None:
    scores = (
        torch.randn((3, 3 * NUCLEUS_CANDIDATES), generator=torch.Generator().manual_seed(drawn))
        * spread
    )
    noise = gumbel([drawn] * 3, like=scores)
    how = sampling(top_p=share)
    chosen, doubt = draw(scores, noise, how)
    expected = (warped(scores, how) + noise).argmax(dim=1)
    assert chosen[~doubt].tolist() == expected[~doubt].tolist()


@pytest.mark.parametrize("how", [{"top_p": 0.6}, {"top_k": 2}])
def test_two_of_which_only_one_may_be_sampled_are_in_doubt(how: dict[str, float]) -> None:
    line = torch.tensor([[2.0, 1.0, 1.0 - 1e-4, -1.0], [2.0, 1.5, 0.5, -1.0]])
    for wanted in range(3):
        noise = torch.zeros((2, 4))
        noise[:, wanted] = 9.0
        _, doubt = draw(line, noise, sampling(**how))
        assert doubt.tolist() == [wanted > 0, False]


def test_most_choices_are_without_doubt() -> None:
    scores = torch.randn((1_000, VOCABULARY), generator=torch.Generator().manual_seed(0)) * 3
    many = sampling(temperature=0.7, top_p=0.9, top_k=8)
    _, doubt = draw(scores, gumbel(many.seeds(0, steps=1_000), like=scores), many)
    assert doubt.sum() < 10


def test_without_sampling_a_near_tie_is_in_doubt() -> None:
    choice = TokenChoiceProcessor(
        [StepRange(0, None, first=0, end=4), StepRange(1, None, first=0, end=4)]
    )
    scores = torch.tensor([[1.0, 3.0, 3.0 + 1e-5], [1.0, 3.0, 3.1]])
    assert choice(NO_IDS, scores) is scores
    assert choice.doubts().tolist() == [[True], [False]]


def test_scores_that_are_nan_are_noticed() -> None:
    choice = TokenChoiceProcessor(
        [StepRange(0, None, first=0, end=4), StepRange(1, None, first=0, end=4)]
    )
    choice(NO_IDS, torch.tensor([[1.0, float("nan")], [1.0, 2.0]]))
    assert choice.not_finite().tolist() == [[True], [False]]


def test_rows_that_sample_differently_choose_as_each_would_alone() -> None:
    hot, cool = sampling(temperature=2.0, seed=3), sampling(temperature=0.5, top_k=4)
    how = [(4, None), (5, hot), (6, cool), (7, hot), (8, sampling(temperature=2.0, seed=9))]
    rows = [StepRange(row, each, first=0, end=6) for row, each in how]
    steps = torch.randn((6, len(rows), VOCABULARY), generator=torch.Generator().manual_seed(0))
    together, alone = TokenChoiceProcessor(rows), [TokenChoiceProcessor([row]) for row in rows]
    for scores in steps:
        chosen = together(NO_IDS, scores).argmax(dim=1)
        each = [one(NO_IDS, scores[place : place + 1]) for place, one in enumerate(alone)]
        assert chosen.tolist() == [int(one.argmax()) for one in each]
    doubts = torch.cat([one.doubts() for one in alone])
    assert torch.equal(together.doubts(), doubts)


@pytest.mark.parametrize(("seed", "row", "same"), [(0, 7, True), (0, 8, False), (1, 7, False)])
def test_a_rows_noise_follows_from_the_seed_and_its_place(seed: int, row: int, same: bool) -> None:  # noqa: FBT001
    first, second = sampling(seed=0).seeds(7, steps=5), sampling(seed=seed).seeds(row, steps=5)
    assert (first == second) is same
    assert len(set(first)) == 5
    assert sampling(seed=0).seeds(7, steps=3) == first[:3]


@pytest.mark.parametrize("cold", [1e-6, 1e-30, 1e-45])
def test_the_lower_the_temperature_the_likelier_the_likeliest_token(cold: float) -> None:
    scores = torch.randn((50, VOCABULARY), generator=torch.Generator().manual_seed(0))
    chosen, _ = draw(scores, gumbel(range(50), like=scores), sampling(temperature=cold))
    assert torch.equal(chosen, scores.argmax(dim=1))
