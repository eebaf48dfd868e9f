"""A thread of the API process that looks through the object store, now and then.

It also removes entries of the audit trail that are old enough.

Of all API processes one does a round: it takes the lease of the round in Postgres and renews it
between batches. If it dies, another one begins a round when the lease has run out.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import structlog

from api.server import errors
from jobs import collector
from jobs.database import Sessions
from jobs.errors import StorageFault
from jobs.ledger import audit, collection_rounds
from jobs.objects import ObjectStore
from jobs.settings import Settings

log = structlog.get_logger(__name__)

LOOK_SECONDS = 60.0
"""Between two looks whether a round is due."""

FAULTS = 3
"""Of the store, that a log line names."""

LEASE = timedelta(minutes=10)
"""A batch takes seconds; a store that hangs is an error after two minutes."""


class CollectThread:
    """Collects while ``running``."""

    def __init__(self, sessions: Sessions, store: ObjectStore, *, settings: Settings) -> None:
        self._sessions = sessions
        self._store = store
        self._settings = settings
        self._stopped = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        """The thread runs while the block does. It is not joined: a round may end anywhere."""
        if self._settings.collect_interval_seconds:
            threading.Thread(target=self._run, name="collect", daemon=True).start()
        try:
            yield
        finally:
            self._stopped.set()

    def _run(self) -> None:
        pause = min(LOOK_SECONDS, self._settings.collect_interval_seconds)
        while not self._stopped.is_set():
            try:
                self._look()
            except (StorageFault, *errors.DATABASE_DOWN) as error:
                log.warning("the object store is looked through later", error=errors.reason(error))
            except Exception:
                log.exception("the object store could not be looked through")
            self._stopped.wait(pause)

    def _look(self) -> None:
        interval = self._settings.collect_interval
        with self._sessions.begin() as session:
            fence = collection_rounds.claim(session, interval=interval, duration=LEASE)
        if fence is not None:
            self._collect(fence)

    def _collect(self, fence: int) -> None:
        def going() -> bool:
            with self._sessions.begin() as session:
                ours = collection_rounds.renew(session, fence, duration=LEASE)
            return ours and not self._stopped.is_set()

        grace = self._settings.collect_grace
        report = collector.collect(
            self._sessions, self._store, grace=grace, dry_run=False, going=going
        )
        if report is not None:
            log.info(
                "the object store was looked through",
                objects=report.objects,
                removed=report.removed,
                unknown=report.unknown.objects,
                faults=report.faults[:FAULTS],
            )
        while going() and self._prune_audit():
            pass
        with self._sessions.begin() as session:
            collection_rounds.end(session, fence)

    def _prune_audit(self) -> int:
        with self._sessions.begin() as session:
            return audit.prune(session, kept=self._settings.audit_kept)
