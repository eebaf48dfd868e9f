"""When a delivery that failed is tried again, and when its endpoint counts as gone."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

LONGEST = timedelta(days=3)
"""From the first try of a delivery; when it has failed for so long, its endpoint is disabled."""

DELAYS = (5.0, 25.0, 90.0, 480.0, 1_200.0, 1_800.0, 3_600.0)
"""Seconds behind the first tries: the eighth comes after two hours."""

LAST_DELAY = 7_200.0
"""Seconds behind every later try."""

LONGEST_REST = 300.0
JITTER = 0.1
"""Up to this share of a delay is left out, so that what failed together does not come together."""


def next_try(*, tries: int, first_tried_at: datetime, now: datetime, key: str) -> datetime | None:
    """When the try after ``tries`` that failed is due; ``None``: the last one has failed.

    The last one is due when ``LONGEST`` is over. ``key`` decides the jitter: the same in every
    process.
    """
    end = first_tried_at + LONGEST
    if now >= end:
        return None
    return min(now + timedelta(seconds=_delay(tries) * (1 - JITTER * _share(key, tries))), end)


def rest(failures: int) -> timedelta:
    """How long nothing is sent to an endpoint of which ``failures`` tries in a row have failed."""
    return timedelta(seconds=min(_delay(failures), LONGEST_REST))


def _delay(tries: int) -> float:
    return DELAYS[tries - 1] if tries <= len(DELAYS) else LAST_DELAY


def _share(key: str, tries: int) -> float:
    """From 0 to 1, by the hash of both."""
    digest = hashlib.sha256(f"{key}\0{tries}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64
