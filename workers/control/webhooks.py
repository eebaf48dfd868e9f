"""The part of control that sends webhooks, in threads of its own: no receiver delays a turn.

Every control process does it, whether it leads or not. ``jobs.ledger.webhook_deliveries`` says what
is due; here is a thread that claims, and one for each delivery under way.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from sqlalchemy.orm import Session

from jobs import database
from jobs.database import Sessions
from jobs.ledger import webhook_deliveries, webhook_groups
from jobs.ledger.webhook_deliveries import Claim
from jobs.lookups import clock
from jobs.monitoring import catalogue, meters
from jobs.settings import Settings
from jobs.webhooks import events, signatures
from jobs.webhooks.answers import Failure
from workers.control import webhook_mail, webhook_post

log = structlog.get_logger()

HEADERS = {
    "content-type": "application/json",
    "user-agent": "Nightshift-Webhooks",
    "connection": "close",
}

SENDERS = 16
"""Deliveries of one process that are under way at once."""

IDLE_SECONDS = 1.0
AWAY_SECONDS = 5.0
FORGET_SECONDS = 60.0
CONNECTIONS = 4
"""To Postgres, which the senders share."""

POSTGRES_SECONDS = 20.0
"""How long the outcome of a delivery waits for Postgres; then the delivery is sent again."""

STOP_SECONDS = 2.0
"""How long a process that ends waits for its senders: what they do not finish is sent again."""


class WebhookSender:
    """Sends what is due until it is stopped."""

    def __init__(self, sessions: Sessions, *, settings: Settings) -> None:
        self._sessions = sessions
        self._settings = settings
        self._slots = threading.Semaphore(SENDERS)
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._forgot_at = -math.inf

    @contextmanager
    def running(self) -> Iterator[None]:
        """Send while the block runs."""
        thread = threading.Thread(target=self._run, name="webhooks", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            self._wake.set()
            thread.join(STOP_SECONDS)
            self.wait(STOP_SECONDS)

    def wait(self, seconds: float) -> bool:
        """Return when nothing is under way, or after ``seconds``; whether nothing is."""
        until = time.monotonic() + seconds
        taken = 0
        while taken < SENDERS and self._slots.acquire(timeout=max(0.0, until - time.monotonic())):
            taken += 1
        for _ in range(taken):
            self._slots.release()
        return taken == SENDERS

    def turn(self) -> int:
        """Begin all deliveries that are due and for which there is a thread; their number."""
        self._settle_groups()
        begun = 0
        while not self._stopping.is_set() and self._slots.acquire(blocking=False):
            is_begun = False
            try:
                is_begun = self._begin()
            finally:
                if not is_begun:
                    self._slots.release()
            if not is_begun:
                break
            begun += 1
        return begun

    def _run(self) -> None:
        while not self._stopping.is_set():
            pause = IDLE_SECONDS
            try:
                self.turn()
                self._forget()
            except Exception as error:
                pause = AWAY_SECONDS
                if database.is_away(error):
                    log.warning("webhooks wait for Postgres", error=str(error))
                else:
                    log.exception("webhooks cannot be sent")
            self._wake.wait(pause)
            self._wake.clear()

    def _begin(self) -> bool:
        """Send one delivery in a thread; ``False``: none is due."""
        deadline = time.monotonic() + self._settings.webhook_timeout_seconds
        with self._sessions.begin() as session:
            claimed = webhook_deliveries.claim(session, duration=self._settings.webhook_lease)
            now = clock.now(session)
        if claimed is None:
            return False
        body = events.body(
            event_id=claimed.event_id,
            event_type=claimed.event_type,
            at=claimed.at,
            data=claimed.data,
            base_url=self._settings.public_url,
        )
        headers = signatures.headers(claimed.secrets, event_id=claimed.event_id, at=now, body=body)
        threading.Thread(
            target=self._deliver,
            args=(claimed, headers, body, deadline),
            name=f"webhook {claimed.id}",
            daemon=True,
        ).start()
        return True

    def _deliver(
        self, claimed: Claim, headers: dict[str, str], body: bytes, deadline: float
    ) -> None:
        """What happens here is recorded, or the lease ends and it happens again."""
        try:
            status, failure = self._try(claimed, headers, body, deadline)
            meters.add(catalogue.WEBHOOK_TRIES, outcome="failed" if failure else "delivered")
            database.patiently(
                self._sessions,
                lambda session: _record(session, claimed, status, failure),
                seconds=POSTGRES_SECONDS,
            )
        except Exception:
            log.exception("a webhook is sent again when its lease ends", delivery=claimed.id)
        finally:
            self._slots.release()
            self._wake.set()

    def _try(
        self, claimed: Claim, headers: dict[str, str], body: bytes, deadline: float
    ) -> tuple[int | None, Failure | None]:
        """The status of an answer, and why the try failed, if it did."""
        try:
            if claimed.email is not None:
                event = json.loads(body)
                return None, webhook_mail.send(claimed.email, event=event, settings=self._settings)
            assert claimed.url is not None
            return webhook_post.send(
                claimed.url,
                headers={**HEADERS, **headers},
                body=body,
                deadline=deadline,
                allowed=self._settings.webhook_allowed,
            )
        except Exception as error:  # else it would be sent for ever
            log.exception("a webhook cannot be sent by a fault of ours", delivery=claimed.id)
            return None, Failure(f"a fault of Nightshift itself ({type(error).__name__})")

    def _settle_groups(self) -> None:
        found = True
        while found and not self._stopping.is_set():
            with self._sessions.begin() as session:
                found = webhook_groups.settle(session)

    def _forget(self) -> None:
        if time.monotonic() - self._forgot_at < FORGET_SECONDS:
            return
        with self._sessions.begin() as session:
            removed = webhook_deliveries.forget(session)
        if not removed:  # else there may be more
            self._forgot_at = time.monotonic()


def _record(session: Session, claimed: Claim, status: int | None, failure: Failure | None) -> bool:
    if failure is None:
        return webhook_deliveries.succeed(session, claimed, status_code=status)
    return webhook_deliveries.fail(session, claimed, failure)
