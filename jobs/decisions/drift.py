"""Drift: whether the results of a job are spread otherwise than those of earlier ones.

The measure is the population stability index (PSI): the sum over bins of (p - q) * ln(p / q). It is
0 where both are spread alike, and grows without a bound. A common reading: below 0.1 little has
changed, above 0.2 something has.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

SMOOTHING = 0.5
"""Rows that are added to every bin of both sides, so that an empty one is finite."""


@dataclass(frozen=True)
class Spread:
    """Rows by bin, and what a mean needs; ``total`` is null where the bins are names."""

    bins: Mapping[str, int] = field(default_factory=dict)
    total: float | None = None

    @property
    def rows(self) -> int:
        """How many rows it is of."""
        return sum(self.bins.values())

    @property
    def mean(self) -> float | None:
        """Of the values; ``None``: there are none."""
        return None if self.total is None or not self.rows else self.total / self.rows

    def __add__(self, other: Spread) -> Spread:
        totals = [each.total for each in (self, other) if each.total is not None]
        return Spread(Counter(self.bins) + Counter(other.bins), sum(totals) if totals else None)


@dataclass(frozen=True)
class Profile:
    """How the results of a job are spread."""

    labels: Spread = Spread()
    scores: Spread = Spread()
    lengths: Spread = Spread()  # in tokens
    errors: Spread = Spread()  # rows that failed, and those that did not

    def __add__(self, other: Profile) -> Profile:
        return Profile(**{name: getattr(self, name) + getattr(other, name) for name in MEASURES})

    def as_json(self) -> dict[str, Any]:
        """As it is stored with a fire."""
        return {
            name: {"bins": dict(spread.bins), "total": spread.total}
            for name in MEASURES
            if (spread := getattr(self, name)).rows
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The inverse of ``as_json``."""
        return cls(**{name: Spread(**spread) for name, spread in value.items()})


MEASURES = ("labels", "scores", "lengths", "errors")


@dataclass(frozen=True)
class Measure:
    """One measure: its index, and the mean, or the share of failed rows, then and now."""

    psi: float
    now: float | None
    before: float | None


@dataclass(frozen=True)
class Verdict:
    """Whether a job has drifted from the earlier ones, and by which measure."""

    drifted: bool
    against: int  # earlier jobs
    measures: Mapping[str, Measure]
    words: str

    def as_json(self) -> dict[str, Any]:
        """As it is stored with a fire."""
        measures = {name: vars(measure) for name, measure in self.measures.items()}
        return {**vars(self), "measures": measures}


def psi(expected: Mapping[str, int], actual: Mapping[str, int]) -> float:
    """The population stability index of two spreads over the bins that either has."""
    bins = sorted(expected.keys() | actual.keys())
    before, now = _shares(expected, bins), _shares(actual, bins)
    return sum((q - p) * math.log(q / p) for p, q in zip(before, now, strict=True))


def compare(
    now: Profile, earlier: Sequence[Profile], *, threshold: float, min_rows: int = 1
) -> Verdict:
    """Whether any measure of ``now`` is further from the earlier ones together than the threshold.

    A measure of which one side has fewer than ``min_rows`` rows is left out.
    """
    if not earlier:
        return Verdict(drifted=False, against=0, measures={}, words="there is no earlier one")
    before = sum(earlier[1:], earlier[0])
    measures = dict(_measures(now, before, min_rows=min_rows))
    beyond = {name: each for name, each in measures.items() if each.psi > threshold}
    if not measures:
        words = f"fewer than {min_rows:,} rows cannot be compared"
    elif not beyond:
        words = f"no measure is beyond {threshold:g}"
    else:
        told = "; ".join(_told(name, measure) for name, measure in beyond.items())
        words = f"{told}: beyond {threshold:g}"
    return Verdict(bool(beyond), against=len(earlier), measures=measures, words=words)


def together(members: Mapping[str, Verdict]) -> Verdict:
    """Whether any of several jobs has drifted, in the words of those that have, else of all."""
    drifted = {name: each for name, each in members.items() if each.drifted}
    words = "; ".join(f"{name}: {each.words}" for name, each in (drifted or members).items())
    against = max(each.against for each in members.values())
    return Verdict(bool(drifted), against=against, measures={}, words=words)


def _measures(now: Profile, before: Profile, *, min_rows: int) -> Iterable[tuple[str, Measure]]:
    for name in MEASURES:
        ours, theirs = getattr(now, name), getattr(before, name)
        if min(ours.rows, theirs.rows) >= min_rows:
            index = psi(theirs.bins, ours.bins)
            yield name, Measure(round(index, 4), ours.mean, theirs.mean)


def _told(name: str, measure: Measure) -> str:
    means = ""
    if measure.now is not None and measure.before is not None:
        means = f" (mean {measure.before:.4g}, now {measure.now:.4g})"
    return f"{name} PSI {measure.psi:.3g}{means}"


def _shares(bins: Mapping[str, int], names: Sequence[str]) -> list[float]:
    counts = [bins.get(name, 0) + SMOOTHING for name in names]
    return [count / sum(counts) for count in counts]
