"""Being seen: a worker beats in the ledger, and ends itself when its event loop hangs."""

from __future__ import annotations

import os
import threading
import time

import redis
import structlog
from celery import Celery, bootsteps
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from jobs.ledger import workers
from workers import context

log = structlog.get_logger()

BEAT_SECONDS = 5.0
SILENCE_SECONDS = 30.0
HUNG = 72
ORPHANED = 73


class Presence:
    """A thread that says that this worker is alive, as long as its event loop is."""

    def __init__(self, *, name: str, pool: str, slots: int, device: str, redis_url: str) -> None:
        self._beat = {"name": name, "pool": pool, "slots": slots, "device": device}
        self._redis_url = redis_url
        self._touched_at = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        self.touch()
        self._thread.start()

    def touch(self) -> None:
        """Called by the event loop: it turns."""
        self._touched_at = time.monotonic()

    def stop(self) -> None:
        """Stop beating and leave the record."""
        self._stop.set()
        try:
            with context.get().sessions.begin() as session:
                workers.leave(session, name=str(self._beat["name"]))
        except SQLAlchemyError as error:
            log.warning("could not sign off, the record will age", error=str(error))

    def _run(self) -> None:
        while True:
            if time.monotonic() - self._touched_at > SILENCE_SECONDS and self._broker_answers():
                log.error("the event loop is silent though the broker answers; ending")
                os._exit(HUNG)
            self._say()
            if self._stop.wait(BEAT_SECONDS):
                return

    def _say(self) -> None:
        try:
            with context.get().sessions.begin() as session:
                workers.beat(session, **self._beat)  # type: ignore[arg-type]
        except SQLAlchemyError as error:
            log.warning("could not beat", error=str(error))

    def _broker_answers(self) -> bool:
        """With Redis away the loop waits for it, and that is no reason to end."""
        try:
            with redis.Redis.from_url(
                self._redis_url, socket_timeout=2, socket_connect_timeout=2
            ) as client:
                return bool(client.ping())
        except (RedisError, OSError):
            return False


def attach(app: Celery, presence: Presence) -> None:
    """Start the presence with the worker; let its event loop touch it."""

    class Pulse(bootsteps.StartStopStep):  # type: ignore[misc]
        requires = ("celery.worker.components:Timer", "celery.worker.components:Pool")

        def start(self, worker: object) -> None:
            worker.timer.call_repeatedly(BEAT_SECONDS, presence.touch)  # type: ignore[attr-defined]
            presence.start()

        def stop(self, worker: object) -> None:  # noqa: ARG002 - Celery's signature
            presence.stop()

    app.steps["worker"].add(Pulse)


def end_with_parent() -> None:
    """Make this pool process end when its parent is gone: the device must be free for the next."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(ORPHANED)

    threading.Thread(target=watch, name="orphan-watch", daemon=True).start()
