"""A race of ways to do the same work: they take turns until one is surely the fastest.

What is measured varies by more than ways differ, and with what else the machine does. So only what
was measured in one lap, in which each way has one turn, is compared; and a way leaves only when
the fastest beat it in more laps than chance would bring.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")

LAPS = 8
"""Laps that are measured before a way may leave the race."""

NEAR = 0.99
"""Ways within this share of each other are held for equal."""

PATIENCE = 40
"""So many laps are measured at most."""


class Race(Generic[T]):
    """Who is in the race, and what was measured. The first lap warms up.

    Every other lap goes backwards, so that what gets slower or faster within a lap favours none.
    """

    def __init__(self, ways: Sequence[T]) -> None:
        self.racing = list(ways)
        self._laps: list[dict[T, float]] = []  # how fast, by way
        self._ahead: list[T] = []  # ways whose turn in this lap is still to come

    def next(self) -> T:
        """The way whose turn it is."""
        if not self._ahead:
            self._ahead = self.racing[:: 1 if len(self._laps) % 2 else -1]
            self._laps.append({})
        return self._ahead.pop()

    def note(self, way: T, speed: float | None) -> None:
        """A way was so fast in this lap; ``None``: its turn cannot be compared with others'."""
        if speed is not None:
            self._laps[-1][way] = speed
        if not self._ahead:
            self._leave()

    @property
    def laps(self) -> int:
        """That were measured."""
        return max(0, len(self._laps) - 1)

    @property
    def over(self) -> bool:
        """Whether one way is left, or the last lap was run."""
        return len(self.racing) == 1 or (len(self._laps) > PATIENCE and not self._ahead)

    def speeds(self) -> dict[T, float]:
        """How fast ways are that were measured often enough, relative to the first: medians."""
        first = self.racing[0]
        laps = [lap for lap in self._laps[1:] if first in lap]
        found = {way: [lap[way] / lap[first] for lap in laps if way in lap] for way in self.racing}
        return {
            way: statistics.median(ratios) for way, ratios in found.items() if len(ratios) >= LAPS
        }

    def _leave(self) -> None:
        """Ways that are surely slower than the fastest are out."""
        speeds = self.speeds()
        if speeds:
            fastest = max(speeds, key=speeds.__getitem__)
            self.racing = [way for way in self.racing if not self._loses(way, to=fastest)]

    def _loses(self, way: T, *, to: T) -> bool:
        """Whether a way was beaten in so many laps as fair coins would come up once in 40 times.

        Of n fair coins about half come up, give or take the root of n, two standard deviations.
        """
        laps = [lap for lap in self._laps[1:] if way in lap and to in lap]
        beaten = sum(lap[way] < NEAR * lap[to] for lap in laps)
        return len(laps) >= LAPS and beaten >= len(laps) / 2 + math.sqrt(len(laps))


def run(
    ways: Mapping[T, Callable[[], object]],
    *,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[T, float]:
    """Let ways race that are called to do the work; how fast those left are, relative to the first.

    After so many ``seconds`` no lap begins. A race that was too short to know is empty.
    """
    race, began = Race(list(ways)), clock()
    while not race.over and clock() - began < seconds:
        for _ in list(race.racing):
            way = race.next()
            start = clock()
            ways[way]()
            race.note(way, 1 / max(clock() - start, 1e-9))
    return race.speeds()


def winner(speeds: Mapping[T, float], *, default: T) -> T:
    """The first of those that are as fast as the fastest; the default if nothing is known."""
    if not speeds:
        return default
    fastest = max(speeds.values())
    return next(way for way, speed in speeds.items() if speed >= NEAR * fastest)
