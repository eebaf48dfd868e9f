"""The watchdog of a worker's event loop: tells a loop that hangs from one that waits for Redis.

Keeps promise P12: a hung process is ended, a healthy one never. See decision 0039.
"""

from __future__ import annotations

import time
from collections.abc import Callable

BEATS = 6
"""Beats within the limit; a loop that has missed two of them is looked at."""


class LoopWatchdog:
    """Watches one event loop from a thread beside it; ``touch`` is called by the loop.

    The loop hangs if it has not turned for ``limit`` seconds and the broker answered during all of
    them. Time counts from the first answer after the last failure, because a loop whose broker was
    away sleeps between two tries to connect. Time in which no one looked does not count either: the
    whole process was stopped.
    """

    def __init__(
        self,
        limit: float,
        *,
        broker_answers: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = limit
        self._broker_answers = broker_answers
        self._clock = clock
        self._turned_at = self._looked_at = clock()
        self._answering_since: float | None = None

    @property
    def beat(self) -> float:
        """Seconds between two touches, and between two looks."""
        return self._limit / BEATS

    def touch(self) -> None:
        """The loop turns."""
        self._turned_at = self._clock()

    def is_hung(self) -> bool:
        """Look once; the answer is right if this is called once a beat."""
        now = self._clock()
        was_away = now - self._looked_at > self._limit / 2
        self._looked_at = now
        is_late = now - self._turned_at >= 2 * self.beat
        if not is_late or was_away or not self._broker_answers():
            self._answering_since = None
            return False
        if self._answering_since is None:
            self._answering_since = now
        return now - max(self._turned_at, self._answering_since) >= self._limit
