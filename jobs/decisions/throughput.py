"""How fast a bulk job goes, and how long it will still take.

The *pace* is rows per second of a worker's computing, of work that is known to be done: committed
chunks, and what workers have reported of chunks under way. As a ratio it does not depend on the
moment at which it is asked for. The *rate* is the pace times the workers that compute at present,
so it follows a worker that joins or dies within seconds (docs/lifecycle.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

WINDOW = timedelta(minutes=2)
"""The pace is that of work within this time up to now."""

LATELY = timedelta(seconds=15)
"""How many workers compute is averaged over this time."""

STALE = timedelta(seconds=15)
"""A worker that has reported nothing for this long is not counted as computing."""


@dataclass(frozen=True)
class Work:
    """Sums over the chunks of a job at one moment."""

    rows: float = 0.0  # done within ``WINDOW``
    seconds: float = 0.0  # that workers computed for them
    busy_seconds: float = 0.0  # that workers computed within ``LATELY``
    age_seconds: float = 0.0  # since the job's first chunk was begun
    under_way: float = 0.0  # rows' worth of work, as last reported of chunks that are not done
    unreported_seconds: float = 0.0  # that workers have computed since those reports

    @property
    def pace(self) -> float | None:
        """Rows per second of one worker; ``None``: nothing is known to be done lately."""
        return self.rows / self.seconds if self.rows > 0 and self.seconds > 0 else None

    @property
    def workers(self) -> float:
        """Workers that compute, on average over ``LATELY``."""
        lately = min(max(self.age_seconds, 0.1), LATELY.total_seconds())
        return self.busy_seconds / lately

    @property
    def rate(self) -> float | None:
        """Rows per second; ``None``: no worker computes, or the pace is not known yet."""
        return self.pace * self.workers if self.pace and self.workers > 0 else None

    def eta_seconds(self, *, rows_left: int) -> float | None:
        """Seconds until the last of the rows that are in no committed chunk; ``None``: unknown."""
        if self.pace is None or self.rate is None:
            return None
        begun = self.under_way + self.pace * self.unreported_seconds
        return max(rows_left - begun, 0.0) / self.rate
