"""The part of control that lets go what has been kept long enough: small transactions, in turns.

It only marks: the purge thread of the API removes objects and rows (``jobs.purger``). It repeats
nothing and loses nothing if it dies anywhere, for every transaction is whole by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from jobs.database import Sessions
from jobs.ledger import retention
from jobs.settings import Settings

log = structlog.get_logger()

LONGEST_SECONDS = 0.5
"""How long one turn goes on; what is left is for the next."""

JOBS, FILES, FIRES, SPREAD = 50, 50, 500, 1_000
"""Rows that one transaction looks at."""


def retain(sessions: Sessions, *, settings: Settings) -> int:
    """Let go what is due; how many jobs, files and fires were looked at."""
    until = time.monotonic() + LONGEST_SECONDS
    parts: tuple[tuple[Callable[..., int], int], ...] = (
        (retention.spread, SPREAD),
        (retention.look, JOBS),
        (retention.drop_files, FILES),
        (retention.drop_fires, FIRES),
    )
    did = 0
    for part, limit in parts:
        found = limit
        while found >= limit and time.monotonic() < until:
            with sessions.begin() as session:
                found = part(session, defaults=settings.retention, limit=limit)
            did += found
    return did
