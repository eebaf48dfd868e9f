"""Leases of the uploads that this process receives, and the removal of those that others left.

A process that is killed leaves half an object in the store: a temporary file, or a multipart
upload. Each upload has a row with a lease before its first byte is stored. Every API process renews
its own and removes what lies under leases that ran out, whichever process they belonged to: at its
start, then three times in the time of a lease.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

import anyio
import anyio.to_thread
import structlog
from sqlalchemy import exc
from sqlalchemy.orm import Session

from jobs.database import Sessions
from jobs.errors import NightshiftError
from jobs.ledger import uploads
from jobs.ledger.uploads import Remainder
from jobs.objects import ObjectStore

log = structlog.get_logger(__name__)

AT_ONCE = 100
"""Remainders that one look removes."""


class UploadLeases:
    """Of one process. Everything but ``run`` is called in threads."""

    def __init__(self, *, store: ObjectStore, sessions: Sessions, duration: timedelta) -> None:
        self._store = store
        self._sessions = sessions
        self._duration = duration
        self._file_ids: set[str] = set()
        self._thread = anyio.CapacityLimiter(1)

    def begin(self, file_id: str, *, project_id: str, object_key: str) -> None:
        """Take the lease of an upload."""
        with self._sessions.begin() as session:
            uploads.begin(
                session,
                file_id=file_id,
                project_id=project_id,
                object_key=object_key,
                duration=self._duration,
            )
        self._file_ids.add(file_id)

    def complete(self, session: Session, file_id: str) -> None:
        """Give it up in the transaction that records the file. Raises ``StorageAway``."""
        uploads.complete(session, file_id)
        self._file_ids.discard(file_id)

    def leave(self, file_id: str) -> None:
        """Let a lease run out: what is left in the store is removed then."""
        self._file_ids.discard(file_id)

    def abort(self, file_id: str) -> None:
        """Give up a lease of which nothing is left in the store."""
        self.leave(file_id)
        with self._sessions.begin() as session:
            uploads.abort(session, file_id)

    async def run(self) -> None:
        """Renew and remove until cancelled."""
        while True:
            await anyio.to_thread.run_sync(self._look, limiter=self._thread)
            await asyncio.sleep(self._duration.total_seconds() / 3)

    def _look(self) -> None:
        try:
            with self._sessions.begin() as session:
                uploads.renew(session, tuple(self._file_ids), duration=self._duration)
                left = uploads.claim_remainders(session, duration=self._duration, limit=AT_ONCE)
        except exc.SQLAlchemyError as error:
            log.warning("the leases of uploads were not renewed", error=str(error))
            return
        for remainder in left:
            self._remove(remainder)

    def _remove(self, remainder: Remainder) -> None:
        try:
            self._store.discard(remainder.object_key)
            with self._sessions.begin() as session:
                uploads.abort(session, remainder.file_id, fence=remainder.fence)
        except (NightshiftError, exc.SQLAlchemyError) as error:
            log.warning(
                "what is left of an upload was not removed",
                file=remainder.file_id,
                error=str(error),
            )
        else:
            log.info("removed what was left of an upload", file=remainder.file_id)
