"""Leadership: a Postgres advisory lock on a connection that also listens for notifications.

The lock ends with its connection, so a leader that dies is replaced as soon as Postgres notices.
Two leaders for a moment are harmless: every move is guarded in the ledger.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

import psycopg

from jobs import database
from jobs.ledger.events import CONTROL_CHANNEL

_LOCK = 0x6C656164  # "lead"


class Leadership:
    """A connection that may hold the leader's lock. Raises psycopg's errors when it breaks."""

    def __init__(self, database_url: str) -> None:
        self._connection = psycopg.connect(
            database.plain_url(database_url),
            autocommit=True,
            connect_timeout=5,
            application_name="nightshift-control-leader",
            keepalives_idle=5,
            keepalives_interval=2,
            keepalives_count=3,
            tcp_user_timeout=15_000,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()

    def held(self) -> bool:
        """Whether this process leads; takes the lock if it is free. Safe to ask every turn."""
        if self._ours():
            return True
        row = self._connection.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK,)).fetchone()
        if not (row and row[0]):
            return False
        self._connection.execute(f"LISTEN {CONTROL_CHANNEL}")  # who waits would only hoard it
        return True

    def wait(self, seconds: float) -> None:
        """Sleep until a notification, at most ``seconds``; several wake it once."""
        for _ in self._connection.notifies(timeout=seconds, stop_after=1):
            pass

    def _ours(self) -> bool:
        row = self._connection.execute(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = %s "
            "AND pid = pg_backend_pid() AND granted",
            (_LOCK,),
        ).fetchone()
        return bool(row and row[0])
