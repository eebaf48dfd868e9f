"""Which create a try without an ``Idempotency-Key`` repeats, if any; pure.

A client counts its tries of one create from 0 and sends the count. They may be served in any
order, because a client gives a try up while the server still works on it; but the first one arrives
before the others. (``docs/decisions/0056-retries-without-a-key.md``.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Try:
    """One request of a create: how many tries came before it, and when its head arrived."""

    count: int
    arrived: datetime


@dataclass(frozen=True)
class Made:
    """What a create with the same body made, and the tries that were answered with it."""

    id: str
    arrivals: Mapping[int, datetime]
    named_at: datetime | None  # its client named the id: it has an answer. None: not yet


def repeated(made: Sequence[Made], attempt: Try) -> Made | None:
    """The create that this try belongs to; ``None``: it is a new one. ``made``: oldest first.

    Of several the one with the nearest count, and the oldest of those.
    """
    possible = [each for each in made if _belongs(attempt, each)]
    return min(possible, key=lambda each: _distance(attempt, each), default=None)


def _belongs(attempt: Try, made: Made) -> bool:
    if made.named_at is not None and made.named_at <= attempt.arrived:
        return False
    if attempt.count in made.arrivals:
        return False  # two tries with the same count are two creates
    if attempt.count == 0:
        return attempt.arrived <= min(made.arrivals.values())  # a later one overtook it
    return made.arrivals.get(0, attempt.arrived) <= attempt.arrived


def _distance(attempt: Try, made: Made) -> int:
    return min(abs(count - attempt.count) for count in made.arrivals)
