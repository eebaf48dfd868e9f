"""A race of candidates for the same work: they take turns until one is surely the fastest.

Measurements vary by more than the candidates differ, and with the load of the machine. So only
measurements of one lap, in which each candidate has one turn, are compared; and a candidate is
dropped only when the fastest beat it in more laps than chance explains.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")

MIN_LAPS = 8
"""Laps that are measured before a candidate may be dropped."""

TIE = 0.99
"""Candidates count as equally fast if the slower one has at least this share of the speed."""

MAX_LAPS = 40


class Race(Generic[T]):
    """The candidates that remain, and their measurements. The first lap is a warm-up.

    Every other lap runs in reverse, so that a trend within a lap favours no candidate.
    """

    def __init__(self, candidates: Sequence[T]) -> None:
        self.remaining = list(candidates)
        self._laps: list[dict[T, float]] = []  # speeds by candidate
        self._turns: list[T] = []  # candidates whose turn in this lap is still to come

    def next(self) -> T:
        """The candidate whose turn it is."""
        if not self._turns:
            self._turns = self.remaining[:: 1 if len(self._laps) % 2 else -1]
            self._laps.append({})
        return self._turns.pop()

    def record(self, candidate: T, speed: float | None) -> None:
        """A candidate's speed in this lap; ``None``: its turn cannot be compared with others'."""
        if speed is not None:
            self._laps[-1][candidate] = speed
        if not self._turns:
            self._drop_slower()

    @property
    def laps(self) -> int:
        """Measured laps, without the warm-up."""
        return max(0, len(self._laps) - 1)

    @property
    def over(self) -> bool:
        """Whether one candidate remains, or the last lap is finished."""
        return len(self.remaining) == 1 or (len(self._laps) > MAX_LAPS and not self._turns)

    def speeds(self) -> dict[T, float]:
        """Median speeds relative to the first candidate, of those with enough measurements."""
        first = self.remaining[0]
        laps = [lap for lap in self._laps[1:] if first in lap]
        ratios = {
            candidate: [lap[candidate] / lap[first] for lap in laps if candidate in lap]
            for candidate in self.remaining
        }
        return {
            candidate: statistics.median(measured)
            for candidate, measured in ratios.items()
            if len(measured) >= MIN_LAPS
        }

    def _drop_slower(self) -> None:
        """Drop the candidates that are surely slower than the fastest."""
        speeds = self.speeds()
        if speeds:
            fastest = max(speeds, key=speeds.__getitem__)
            self.remaining = [each for each in self.remaining if not self._loses(each, to=fastest)]

    def _loses(self, candidate: T, *, to: T) -> bool:
        """Whether a candidate lost more laps than a fair coin would explain, but for once in 40.

        Of n tosses of a fair coin about n / 2 are heads, plus or minus the square root of n, which
        is two standard deviations.
        """
        laps = [lap for lap in self._laps[1:] if candidate in lap and to in lap]
        lost = sum(lap[candidate] < TIE * lap[to] for lap in laps)
        return len(laps) >= MIN_LAPS and lost >= len(laps) / 2 + math.sqrt(len(laps))


def run(
    candidates: Mapping[T, Callable[[], object]],
    *,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[T, float]:
    """Let candidates race, each a call that does the work; the speeds of those that remain.

    Speeds are relative to the first. No lap begins after ``seconds``. A race that was too short to
    decide returns nothing.
    """
    race, began = Race(list(candidates)), clock()
    while not race.over and clock() - began < seconds:
        for _ in list(race.remaining):
            candidate = race.next()
            start = clock()
            candidates[candidate]()
            race.record(candidate, 1 / max(clock() - start, 1e-9))
    return race.speeds()


def winner(speeds: Mapping[T, float], *, default: T) -> T:
    """The first of those that tie for the fastest; the default if there are no speeds."""
    if not speeds:
        return default
    fastest = max(speeds.values())
    return next(candidate for candidate, speed in speeds.items() if speed >= TIE * fastest)
