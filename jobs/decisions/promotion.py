"""Whether a new version takes an alias: one metric on one set, better by more than a margin."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

HIGHER = frozenset({"accuracy", "macro_f1", "weighted_f1", "micro_f1", "bleu", "chrf"})
LOWER = frozenset({"loss", "perplexity"})
"""Metrics of which more is better, and those of which less is."""


@dataclass(frozen=True)
class Rated:
    """A version, `name@version`, and its number on the set that decides."""

    version: str
    value: float


@dataclass(frozen=True)
class Unrated:
    """A version, `name@version`, that has no number on that set, and why."""

    version: str
    reason: str


class Decision(NamedTuple):
    """Whether the alias moves, and why, with every number that was looked at."""

    promoted: bool
    reason: str


def is_better(metric: str, *, new: float, old: float, margin: float = 0.0) -> bool:
    """Whether ``new`` beats ``old`` by more than the margin; with NaN nothing beats anything.

    Raises ``ValueError`` for a metric whose good direction is not known.
    """
    if metric not in HIGHER | LOWER:
        known = ", ".join(sorted(HIGHER | LOWER))
        raise ValueError(f"metric must be one of {known}, not {metric!r}")
    return new > old + margin if metric in HIGHER else new < old - margin


def decide(
    *,
    alias: str,
    metric: str,
    margin: float,
    candidate: Rated,
    incumbent: Rated | Unrated | None,
) -> Decision:
    """Whether the candidate takes the alias.

    One that points nowhere is taken by any number. An incumbent without a number is not beaten:
    nobody knows which is better, and the alias may be in use.
    """
    ours = f"{metric} {candidate.value:.6g} of {candidate.version}"
    if math.isnan(candidate.value):
        return Decision(promoted=False, reason=f"{ours} is no number: {alias} stays as it is")
    if incumbent is None:
        return Decision(
            promoted=True, reason=f"{alias} pointed nowhere and takes {ours} as the first"
        )
    if isinstance(incumbent, Rated) and math.isnan(incumbent.value):
        incumbent = Unrated(incumbent.version, f"its {metric} is no number")
    if isinstance(incumbent, Unrated):
        return Decision(
            promoted=False,
            reason=f"{ours} cannot be compared with {incumbent.version} ({incumbent.reason}): "
            f"{alias} stays as it is; set it by hand if the new version is to have it",
        )
    theirs = f"{incumbent.value:.6g} of {incumbent.version}"
    more = f"by more than {margin:g}"
    if is_better(metric, new=candidate.value, old=incumbent.value, margin=margin):
        return Decision(promoted=True, reason=f"{ours} beats {theirs} {more}: {alias} moves")
    return Decision(
        promoted=False, reason=f"{ours} does not beat {theirs} {more}: {alias} stays as it is"
    )
