"""Leadership of one control process: a lease in Postgres, kept by turning.

``jobs.ledger.leadership`` has the rules. All that a leader reads and writes goes through the one
session that holds its lock. If that session ends, ``sessions`` makes no other: a leader that was
replaced can write nothing.
"""

from __future__ import annotations

import time
from datetime import timedelta
from types import TracebackType
from typing import Self

import structlog

from jobs import database
from jobs.errors import ControlFlow
from jobs.ledger import leadership

log = structlog.get_logger()


class LeadershipLost(ControlFlow):
    """Another control process leads."""


class Leadership:
    """One session that may lead. Raises the errors of psycopg and SQLAlchemy when it breaks."""

    def __init__(self, database_url: str, *, name: str, duration: timedelta) -> None:
        self._name = name
        self._duration = duration
        self._fence: int | None = None
        self._led_since = self._renewed_at = 0.0
        self._engine, self._connection = database.single_session(
            database_url, name="nightshift-control"
        )
        self.sessions = database.sessions(self._engine)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()
        self._engine.dispose()

    @property
    def led_for(self) -> float:
        """Seconds for which this process has led and was never late."""
        return time.monotonic() - self._led_since

    def is_leader(self) -> bool:
        """Whether this process leads; claims the lease if it is free. Safe to ask every turn."""
        if self._fence is not None:
            self.keep()
            return True
        asked_at = time.monotonic()
        with self.sessions.begin() as session:
            if leadership.end_late(session, duration=self._duration):
                log.warning("the leader among the control processes hung, its session was ended")
        with self.sessions.begin() as session:
            self._fence = leadership.claim(session, leader=self._name, duration=self._duration)
        if self._fence is None:
            return False
        self._led_since = self._renewed_at = asked_at
        log.info("this control process leads", leader=self._name, fence=self._fence)
        return True

    def keep(self) -> None:
        """Renew the lease if a third of it has passed. Raises ``LeadershipLost``."""
        asked_at = time.monotonic()
        if asked_at - self._renewed_at < self._duration.total_seconds() / 3:
            return
        with self.sessions.begin() as session:
            ours = leadership.renew(session, fence=self._require_fence(), duration=self._duration)
        self._renewed(asked_at, ours=ours)

    def record_turn(self, *, broker_error: str | None) -> None:
        """Record that this process has turned, and renew the lease. Raises ``LeadershipLost``."""
        asked_at = time.monotonic()
        with self.sessions.begin() as session:
            ours = leadership.record_turn(
                session,
                fence=self._require_fence(),
                duration=self._duration,
                broker_error=broker_error,
            )
        self._renewed(asked_at, ours=ours)

    def wait(self, seconds: float) -> None:
        """Sleep until a notification, at most ``seconds``; several wake it once."""
        for _ in self._connection.notifies(timeout=seconds, stop_after=1):
            pass

    def _renewed(self, asked_at: float, *, ours: bool) -> None:
        if not ours:
            raise LeadershipLost(f"fence {self._fence} of {self._name} is void")
        if asked_at - self._renewed_at > self._duration.total_seconds():
            self._led_since = asked_at  # it was late, and no one has replaced it
        self._renewed_at = asked_at

    def _require_fence(self) -> int:
        if self._fence is None:
            raise LeadershipLost(f"{self._name} does not lead")
        return self._fence
