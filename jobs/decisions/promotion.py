"""Promotion: a new version takes an alias if it is better on one metric, by more than a margin."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

HIGHER = frozenset({"accuracy", "macro_f1", "weighted_f1", "micro_f1", "bleu", "chrf"})
LOWER = frozenset({"loss", "perplexity"})
"""Metrics where higher is better, and metrics where lower is."""


@dataclass(frozen=True)
class RatedVersion:
    """A version, `name@version`, and its metric on the deciding corpus."""

    version: str
    value: float


@dataclass(frozen=True)
class UnratedVersion:
    """A version, `name@version`, without a metric on that corpus, and why."""

    version: str
    reason: str


class Decision(NamedTuple):
    """Whether the alias moves, and why, with the metrics that were compared."""

    promoted: bool
    reason: str


def is_better(metric: str, *, new: float, old: float, margin: float = 0.0) -> bool:
    """Whether ``new`` beats ``old`` by more than the margin; false where either is NaN.

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
    candidate: RatedVersion,
    incumbent: RatedVersion | UnratedVersion | None,
) -> Decision:
    """Whether the candidate takes the alias.

    An alias that points nowhere goes to any candidate with a metric. An incumbent without a metric
    stays: which version is better is unknown, and the alias may be in use.
    """
    ours = f"{metric} {candidate.value:.6g} of {candidate.version}"
    if math.isnan(candidate.value):
        return Decision(promoted=False, reason=f"{ours} is not a number: {alias} stays as it is")
    if incumbent is None:
        return Decision(
            promoted=True, reason=f"{alias} pointed nowhere and takes {ours} as the first"
        )
    if isinstance(incumbent, RatedVersion) and math.isnan(incumbent.value):
        incumbent = UnratedVersion(incumbent.version, f"its {metric} is not a number")
    if isinstance(incumbent, UnratedVersion):
        return Decision(
            promoted=False,
            reason=f"{ours} cannot be compared with {incumbent.version} ({incumbent.reason}): "
            f"{alias} stays as it is; set it by hand if the new version should have it",
        )
    theirs = f"{incumbent.value:.6g} of {incumbent.version}"
    more = f"by more than {margin:g}"
    if is_better(metric, new=candidate.value, old=incumbent.value, margin=margin):
        return Decision(promoted=True, reason=f"{ours} beats {theirs} {more}: {alias} moves")
    return Decision(
        promoted=False, reason=f"{ours} does not beat {theirs} {more}: {alias} stays as it is"
    )
