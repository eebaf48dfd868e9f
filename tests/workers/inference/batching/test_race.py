"""Races on a simulated clock: the fastest wins, whatever the noise, and a race ends in time."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType

import pytest

from workers.inference.batching import race
from workers.inference.batching.race import MAX_LAPS, MIN_LAPS

ENDLESS = math.inf


class Track:
    """Candidates that take these seconds on a simulated clock, with log-normal noise."""

    def __init__(
        self,
        takes: Mapping[str, float],
        *,
        noise: float = 0.0,
        seed: int = 0,
        cold: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        self.now = 0.0
        self._cold = dict(cold)  # additional seconds of a candidate's first turn
        self.turns = Counter[str]()
        self._takes = takes
        self._noise = noise
        self._chance = random.Random(seed)

    def run(self, *, seconds: float = ENDLESS) -> dict[str, float]:
        candidates = {name: lambda name=name: self._work(name) for name in self._takes}
        return race.run(candidates, seconds=seconds, clock=lambda: self.now)

    def _work(self, name: str) -> None:
        self.turns[name] += 1
        self.now += self._cold.pop(name, 0.0)
        self.now += self._takes[name] * math.exp(self._chance.gauss(0, self._noise))


@pytest.mark.parametrize(
    ("takes", "best"),
    [
        ({"plain": 1.0, "laid_out": 0.8}, "laid_out"),
        ({"plain": 0.8, "laid_out": 1.0}, "plain"),
        ({"plain": 1.0, "laid_out": 1.0}, "plain"),
        ({"plain": 1.0, "laid_out": 0.995}, "plain"),
        ({"a": 1.0, "b": 0.7, "c": 0.6, "d": 0.9}, "c"),
    ],
)
def test_the_first_of_the_fastest_wins(takes: dict[str, float], best: str) -> None:
    assert race.winner(Track(takes).run(), default="none") == best


def test_noise_larger_than_the_difference_does_not_decide() -> None:
    wins = 0
    for seed in range(100):
        track = Track({"plain": 1.08, "laid_out": 1.0}, noise=0.1, seed=seed)
        wins += race.winner(track.run(), default="none") == "laid_out"
    assert wins >= 90


def test_a_candidate_that_loses_every_lap_has_no_more_turns() -> None:
    track = Track({"a": 2.0, "b": 1.0, "c": 1.0})
    assert set(track.run()) == {"b", "c"}
    assert track.turns == {"a": MIN_LAPS + 1, "b": MAX_LAPS + 1, "c": MAX_LAPS + 1}


def test_a_clear_race_is_over_after_few_laps() -> None:
    track = Track({"plain": 1.0, "laid_out": 2.0})
    assert set(track.run()) == {"plain"}
    assert track.turns == {"plain": MIN_LAPS + 1, "laid_out": MIN_LAPS + 1}


@pytest.mark.parametrize("seconds", [1.0, 10.0, 25.0])
def test_no_lap_begins_after_the_time_is_up(seconds: float) -> None:
    track = Track({"plain": 1.0, "laid_out": 1.0})
    track.run(seconds=seconds)
    assert track.now < seconds + 2.0


def test_a_race_that_was_too_short_to_know_is_won_by_the_default() -> None:
    speeds = Track({"plain": 1.0, "laid_out": 0.5}).run(seconds=5.0)
    assert speeds == {}
    assert race.winner(speeds, default="plain") == "plain"


def test_the_first_turn_of_all_counts_for_nothing() -> None:
    """A candidate's first call allocates, compiles and fetches what later calls reuse."""
    track = Track({"plain": 1.0, "laid_out": 0.9}, cold={"laid_out": 50.0})
    assert race.winner(track.run(), default="none") == "laid_out"
