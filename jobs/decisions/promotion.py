"""Promotion: a new version takes an alias if it passes the gate.

The gate is a metric with a margin, floors for each label, and a number of deciding rows. NaN never
passes and is never beaten, a tie never wins, and too few rows decide nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

HIGHER = frozenset({"accuracy", "macro_f1", "weighted_f1", "micro_f1", "bleu", "chrf"})
LOWER = frozenset({"loss", "perplexity"})
"""Metrics where higher is better, and metrics where lower is."""

MEASURES = ("recall", "precision", "f1")
"""Of one label; higher is better."""

ROUNDING = 1e-9
"""A difference that exceeds a limit by this share or less is the limit, in binary fractions."""

MOST_STORED = 100
"""Checks and labels that are kept with a decision; there may be thousands of labels."""

_SHOWN_BREACHES = 3
_SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class Floors:
    """What every label must keep, by the measure; a label with fewer than ``rows`` is left out."""

    drops: Mapping[str, float] = field(default_factory=dict)  # most that it may lose
    least: Mapping[str, float] = field(default_factory=dict)
    rows: int = 1

    def __bool__(self) -> bool:
        return bool(self.drops or self.least)


@dataclass(frozen=True)
class Gate:
    """What a new version must pass to take the alias."""

    alias: str
    metric: str
    margin: float = 0.0
    min_rows: int = 0
    floors: Floors = field(default_factory=Floors)
    held_back: str | None = None  # why no version is promoted, whatever it measures; null: none


@dataclass(frozen=True)
class LabelScores:
    """The measures of one label on the deciding rows."""

    rows: int  # that have the label
    measures: Mapping[str, float]


@dataclass(frozen=True)
class RatedVersion:
    """A version, `name@version`, and what it measured on the deciding rows."""

    version: str
    value: float
    rows: int | None = None  # null: not counted
    labels: Mapping[str, LabelScores] | None = None  # null: the report has none


@dataclass(frozen=True)
class UnratedVersion:
    """A version, `name@version`, without a metric on those rows, and why."""

    version: str
    reason: str


@dataclass(frozen=True)
class FloorCheck:
    """One floor for one label."""

    label: str
    measure: str
    value: float
    least: float | None  # the floor; null: it is about the drop
    drop: float | None  # the most that it may lose; null: it is about the least
    incumbent: float | None  # what it is compared with; null: with nothing
    passed: bool

    def as_json(self) -> dict[str, Any]:
        """As it is stored with the decision."""
        return dict(vars(self))


class FloorChecks(NamedTuple):
    """The floors that were checked, and the labels that no floor could be checked for."""

    checks: tuple[FloorCheck, ...] = ()
    unchecked: tuple[str, ...] = ()

    @property
    def breaches(self) -> tuple[FloorCheck, ...]:
        """The floors that were not kept."""
        return tuple(check for check in self.checks if not check.passed)

    def as_json(self) -> dict[str, Any]:
        """As it is stored with the decision: counts, and the first checks, those that failed first.

        ``unchecked``: labels with too few rows.
        """
        ordered = sorted(self.checks, key=lambda check: check.passed)
        return {
            "checked": len(self.checks),
            "broken": len(self.breaches),
            "checks": [check.as_json() for check in ordered[:MOST_STORED]],
            "unchecked": list(self.unchecked[:MOST_STORED]),
        }


class Decision(NamedTuple):
    """Whether the alias moves, and why, with the metrics that were compared."""

    promoted: bool
    reason: str
    floors: FloorChecks = FloorChecks()


def is_better(metric: str, *, new: float, old: float, margin: float = 0.0) -> bool:
    """Whether ``new`` beats ``old`` by more than the margin; false where either is NaN.

    Raises ``ValueError`` for a metric whose good direction is not known.
    """
    if metric not in HIGHER | LOWER:
        known = ", ".join(sorted(HIGHER | LOWER))
        raise ValueError(f"metric must be one of {known}, not {metric!r}")
    if margin == 0:
        return new > old if metric in HIGHER else new < old
    return _exceeds(new, old + margin) if metric in HIGHER else _exceeds(old - margin, new)


def decide(
    gate: Gate,
    *,
    candidate: RatedVersion,
    incumbent: RatedVersion | UnratedVersion | None,
) -> Decision:
    """Whether the candidate takes the alias.

    An alias that points nowhere goes to any candidate that passes the rest of the gate. An
    incumbent without a metric stays: which version is better is unknown, and the alias may be in
    use.
    """
    if isinstance(incumbent, RatedVersion) and math.isnan(incumbent.value):
        incumbent = UnratedVersion(incumbent.version, f"its {gate.metric} is not a number")
    rival = incumbent if isinstance(incumbent, RatedVersion) else None
    floors = check_floors(gate.floors, candidate=candidate, incumbent=rival)
    obstacle = (
        _unusable(gate, candidate)
        or _unbeaten(gate, candidate, incumbent)
        or _below_floors(gate, candidate, floors)
    )
    if obstacle is not None:
        return Decision(promoted=False, reason=obstacle, floors=floors)
    return Decision(promoted=True, reason=_victory(gate, candidate, rival), floors=floors)


def check_floors(
    floors: Floors, *, candidate: RatedVersion, incumbent: RatedVersion | None
) -> FloorChecks:
    """Every floor for every label of the candidate, the labels in their order.

    A label with fewer rows than ``floors.rows`` is not checked. A drop is checked only for a label
    that both have.
    """
    if not floors or candidate.labels is None:
        return FloorChecks()
    before = (incumbent.labels if incumbent is not None else None) or {}
    checks: list[FloorCheck] = []
    unchecked = []
    for label, scores in candidate.labels.items():
        if scores.rows < max(1, floors.rows):
            unchecked.append(label)
        else:
            checks.extend(_checks(floors, label, scores, before.get(label)))
    return FloorChecks(tuple(checks), tuple(unchecked))


def _checks(
    floors: Floors, label: str, scores: LabelScores, before: LabelScores | None
) -> Iterator[FloorCheck]:
    for measure in MEASURES:
        value = scores.measures.get(measure, math.nan)
        least, drop = floors.least.get(measure), floors.drops.get(measure)
        if least is not None:
            passed = _reaches(value, least)
            yield FloorCheck(label, measure, value, least, None, None, passed)
        if drop is not None and before is not None:
            old = before.measures.get(measure, math.nan)
            passed = _reaches(value, old - drop)
            yield FloorCheck(label, measure, value, None, drop, old, passed)


def _unusable(gate: Gate, candidate: RatedVersion) -> str | None:
    """Why the candidate cannot win, whatever the incumbent is."""
    ours = _ours(gate, candidate)
    if gate.held_back is not None:
        return f"promotion is held back: {gate.held_back}; {ours}: {_stays(gate)}"
    if math.isnan(candidate.value):
        return f"{ours} is not a number: {_stays(gate)}"
    if (candidate.rows or 0) < gate.min_rows:
        count = "an unknown number of" if candidate.rows is None else f"only {candidate.rows:,}"
        return (
            f"{count} rows decide, and min_rows asks for {gate.min_rows:,}; {ours}: {_stays(gate)}"
        )
    return None


def _unbeaten(
    gate: Gate, candidate: RatedVersion, incumbent: RatedVersion | UnratedVersion | None
) -> str | None:
    """Why the incumbent's metric is not beaten; ``None``: it is, or the alias points nowhere."""
    ours = _ours(gate, candidate)
    match incumbent:
        case None:
            return None
        case UnratedVersion():
            return (
                f"{ours} cannot be compared with {incumbent.version} ({incumbent.reason}): "
                f"{_stays(gate)}; set it by hand if the new version should have it"
            )
        case RatedVersion(version=version, value=value):
            if is_better(gate.metric, new=candidate.value, old=value, margin=gate.margin):
                return None
            return (
                f"{ours} does not beat {value:.6g} of {version} by more than {gate.margin:g}: "
                f"{_stays(gate)}"
            )


def _below_floors(gate: Gate, candidate: RatedVersion, floors: FloorChecks) -> str | None:
    """Which labels are below their floors; ``None``: none is."""
    if gate.floors and candidate.labels is None:
        return (
            f"{_ours(gate, candidate)} has no measures of labels, which the floors need: "
            f"{_stays(gate)}"
        )
    breaches = floors.breaches
    if not breaches:
        return None
    shown = "; ".join(map(_breach, breaches[:_SHOWN_BREACHES]))
    others = len(breaches) - _SHOWN_BREACHES
    more = f"; and {others:,} more floors are not kept" if others > 0 else ""
    return f"{_ours(gate, candidate)}, but {shown}{more}: {_stays(gate)}"


def _breach(check: FloorCheck) -> str:
    label = repr(check.label[:_SHOWN_CHARACTERS])
    if check.drop is not None and check.incumbent is not None:
        return (
            f"{check.measure} of {label} falls from {check.incumbent:.6g} to {check.value:.6g}, "
            f"by more than {check.drop:g}"
        )
    return f"{check.measure} of {label} is {check.value:.6g}, below {check.least:g}"


def _victory(gate: Gate, candidate: RatedVersion, incumbent: RatedVersion | None) -> str:
    ours = _ours(gate, candidate)
    if incumbent is None:
        return f"{gate.alias} pointed nowhere and takes {ours} as the first"
    theirs = f"{incumbent.value:.6g} of {incumbent.version}"
    return f"{ours} beats {theirs} by more than {gate.margin:g}: {gate.alias} moves"


def _ours(gate: Gate, candidate: RatedVersion) -> str:
    return f"{gate.metric} {candidate.value:.6g} of {candidate.version}"


def _stays(gate: Gate) -> str:
    return f"{gate.alias} stays as it is"


def _exceeds(value: float, limit: float) -> bool:
    """Whether the value is larger, by more than what rounding may add to equal numbers."""
    return value > limit and not math.isclose(value, limit, rel_tol=ROUNDING)


def _reaches(value: float, limit: float) -> bool:
    """Whether the value is at least the limit, rounding forgiven."""
    return value >= limit or math.isclose(value, limit, rel_tol=ROUNDING)
