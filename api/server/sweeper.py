"""A thread of the API process that removes what belonged to deleted jobs and files.

A request that deletes something only leaves a tombstone and wakes this thread. It looks by itself
as well, for tombstones that another process left behind when it died.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from api.server import errors
from jobs import purger
from jobs.database import Sessions
from jobs.objects import ObjectStore

log = structlog.get_logger(__name__)

PAUSE_SECONDS = 5.0
"""Between two looks without a call of ``wake``: each is two queries of mostly empty indexes."""


class Sweeper:
    """Sweeps while ``running``; what it has begun when the process ends, the next one finishes."""

    def __init__(self, sessions: Sessions, store: ObjectStore) -> None:
        self._sessions = sessions
        self._store = store
        self._woken = threading.Event()
        self._stopping = False

    def wake(self) -> None:
        """Look now: something was deleted."""
        self._woken.set()

    @contextmanager
    def running(self) -> Iterator[None]:
        """The thread runs while the block does. It is not waited for."""
        threading.Thread(target=self._run, name="sweeper", daemon=True).start()
        try:
            yield
        finally:
            self._stopping = True
            self.wake()

    def _run(self) -> None:
        while not self._stopping:
            self._woken.clear()
            try:
                purger.sweep(self._sessions, self._store)
            except errors.DATABASE_DOWN as error:
                log.warning(
                    "deleted jobs and files wait for the database", error=errors.reason(error)
                )
            except Exception:
                log.exception("what was deleted could not be removed")
            self._woken.wait(PAUSE_SECONDS)
