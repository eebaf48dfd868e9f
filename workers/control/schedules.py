"""The part of control that fires schedules: every control process does it, whether it leads or not.

``jobs.ledger.fires`` decides under the lock on a schedule; here is a loop of short transactions.
"""

from __future__ import annotations

import time

import structlog

from jobs import database
from jobs.database import Sessions
from jobs.ledger import fire_cancellations, fire_states, fires
from jobs.lookups import clock
from jobs.queries import pending_work
from jobs.settings import Settings

log = structlog.get_logger()

LONGEST_SECONDS = 1.0
"""How long one turn fires; what is left is for the next turn, and for other processes."""


def look_and_fire(sessions: Sessions, *, settings: Settings) -> int:
    """The turn of a process that does not lead."""
    try:
        with sessions.begin() as session:
            wanted = pending_work.look_at_schedules(session)
        return fire(sessions, settings=settings) if wanted else 0
    except Exception as error:
        if database.is_away(error):
            raise
        log.exception("schedules cannot be fired")
        return 0


def fire(sessions: Sessions, *, settings: Settings) -> int:
    """Let go what is due, and do what follows from fires that ended; the number of both."""
    until = time.monotonic() + LONGEST_SECONDS
    did = _cancel(sessions)
    for part in (fires.follow, fires.fire_due):
        found: int | None = 0
        while found is not None and time.monotonic() < until:
            with sessions.begin() as session:
                found = part(session, now=clock.now(session), settings=settings)
            did += found or 0
    return did


def mend(sessions: Sessions) -> int:
    """Move fires whose jobs have ended without them."""
    with sessions.begin() as session:
        return fire_states.mend(session)


def _cancel(sessions: Sessions) -> int:
    """The jobs of each fire in a transaction of its own: their rows are locked in it."""
    with sessions.begin() as session:
        wanted = fire_cancellations.wanted(session)
    did = 0
    for fire_id in wanted:
        with sessions.begin() as session:
            did += fire_cancellations.cancel(session, fire_id)
    return did
