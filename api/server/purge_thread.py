"""A thread of the API process that purges deleted jobs and files, and folds old chunks.

A request that deletes something only leaves a tombstone and wakes this thread. Every few seconds
the thread also looks for tombstones that another process left behind when it died.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from api.server import errors
from jobs import folding, purger
from jobs.database import Sessions
from jobs.objects import ObjectStore

log = structlog.get_logger(__name__)

PAUSE_SECONDS = 5.0
"""Between two purges without a call of ``wake``; a purge is two queries on mostly empty indexes."""


class PurgeThread:
    """Purges while ``running``.

    A purge cut short by the end of the process is resumed by the next one, once its claim expires.
    """

    def __init__(self, sessions: Sessions, store: ObjectStore) -> None:
        self._sessions = sessions
        self._store = store
        self._woken = threading.Event()
        self._stopping = False

    def wake(self) -> None:
        """Purge now: something was deleted."""
        self._woken.set()

    @contextmanager
    def running(self) -> Iterator[None]:
        """The thread runs while the block does. It is not joined: claims that it leaves expire."""
        threading.Thread(target=self._run, name="purge", daemon=True).start()
        try:
            yield
        finally:
            self._stopping = True
            self.wake()

    def _run(self) -> None:
        while not self._stopping:
            self._woken.clear()
            try:
                purger.purge_deleted(self._sessions, self._store)
                folding.fold_due(self._sessions, self._store)
            except errors.DATABASE_DOWN as error:
                log.warning(
                    "deleted jobs and files wait for the database", error=errors.reason(error)
                )
            except Exception:
                log.exception("what was deleted could not be removed")
            self._woken.wait(PAUSE_SECONDS)
