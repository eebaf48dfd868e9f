"""Celery's consumer, which waits for a broker that is away in short pauses, visibly alive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
from celery.worker.consumer import Consumer
from celery.worker.state import maybe_shutdown

log = structlog.get_logger()

LONGEST_PAUSE = 5
"""Seconds between two tries to connect. Celery's own pauses grow to 30."""


class ReconnectingConsumer(Consumer):  # type: ignore[misc]
    """Reports ``turned`` with every try to connect: a loop that reconnects does not hang."""

    turned: Callable[[], None] | None = None

    def ensure_connected(self, conn: Any) -> Any:
        """Return the connection once it is open, however long that takes."""
        conn.ensure_connection(
            self._report,
            interval_start=1,
            interval_step=1,
            interval_max=LONGEST_PAUSE,
            callback=self._turn,
        )
        self.first_connection_attempt = False
        return conn

    def _turn(self) -> None:
        """Kombu calls this before each pause and in each of its seconds."""
        maybe_shutdown()
        if self.turned is not None:
            self.turned()

    @staticmethod
    def _report(error: Exception, pause: float) -> None:
        log.warning("the broker does not answer", error=str(error), again_in_seconds=pause)
