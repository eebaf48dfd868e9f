"""Waiting for a fact instead of sleeping."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(fact: Callable[[], object], *, seconds: float = 10, every: float = 0.02) -> None:
    """Return as soon as ``fact()`` is true; fail when it is not within ``seconds``."""
    end = time.monotonic() + seconds
    while not fact():
        if time.monotonic() > end:
            raise AssertionError(f"not true within {seconds} s: {fact}")
        time.sleep(every)
