"""Heartbeats: a worker renews its record in the ledger, and ends when its event loop hangs.

``workers.watchdog`` decides when it hangs.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import psutil
import redis
import structlog
from billiard import current_process
from celery import Celery, bootsteps, signals
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from jobs.ledger import rescue, workers
from workers import context, draining, process_names
from workers.context import Context
from workers.watchdog import LoopWatchdog

log = structlog.get_logger()

BEAT_SECONDS = 5.0
HUNG = 72
"""Exit status of a worker whose event loop hung."""


class Record(Protocol):
    """A record in the ledger; each call is one short transaction of the caller's."""

    def arrive(self, session: Session) -> None:
        """Make the record."""

    def beat(self, session: Session) -> None:
        """Renew it."""

    def drain(self, session: Session) -> None:
        """Record that no more work is taken."""

    def beat_draining(self, session: Session) -> None:
        """Renew it while the work that is under way ends."""

    def leave(self, session: Session) -> None:
        """Leave the record."""


@dataclass
class WorkerRecord:
    """A planner or a worker of a pool; an operator may change its slots."""

    name: str
    pool: str
    slots: int
    device: str

    def arrive(self, session: Session) -> None:
        """The first beat."""
        self.beat(session)

    def beat(self, session: Session) -> None:
        """Renew the record."""
        workers.beat(session, name=self.name, pool=self.pool, slots=self.slots, device=self.device)

    def drain(self, session: Session) -> None:
        """Drop the record: a worker that takes no new work is none to wait for."""
        self.leave(session)

    def beat_draining(self, session: Session) -> None:
        """The record is gone."""

    def leave(self, session: Session) -> None:
        """Drop the record."""
        workers.leave(session, name=self.name)


class Presence:
    """A thread that renews the record of this worker as long as its event loop turns."""

    def __init__(
        self,
        record: Record,
        *,
        redis_url: str,
        hang_seconds: float,
        after_beat: Callable[[], None] | None = None,
    ) -> None:
        """``after_beat`` is called in the thread, after each try to renew the record."""
        self._record = record
        self._after_beat = after_beat
        self._redis_url = redis_url
        self._watchdog = LoopWatchdog(hang_seconds, broker_answers=self._broker_answers)
        self._arrived = False
        self._stop = threading.Event()
        self._draining = threading.Event()
        self._recording = threading.Lock()  # no beat brings back a record that was dropped
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)

    @property
    def every(self) -> float:
        """Seconds between two beats, and between two touches of the event loop."""
        return min(BEAT_SECONDS, self._watchdog.beat)

    def start(self) -> None:
        """Begin to beat."""
        self.touch()
        self._arrived = self._record_in_ledger(self._record.arrive)
        self._thread.start()

    def touch(self) -> None:
        """Called by the event loop: it turns."""
        self._watchdog.touch()

    def drain(self) -> None:
        """Take no more work; what is under way may end. The event loop stands still meanwhile."""
        if not self._draining.is_set():
            self._draining.set()
            draining.begin()
            with self._recording:
                self._record_in_ledger(self._record.drain)

    def stop(self) -> None:
        """Stop beating and leave the record."""
        self._stop.set()
        with self._recording:
            self._record_in_ledger(self._record.leave)
        draining.end()

    def _run(self) -> None:
        while True:
            if self._watchdog.is_hung() and not self._draining.is_set():
                self._end()
            if self._stop.wait(self.every):
                return
            with self._recording:
                if self._stop.is_set():
                    return
                self._beat()
            if self._after_beat is not None:
                self._after_beat()

    def _beat(self) -> None:
        if self._draining.is_set():
            self._record_in_ledger(self._record.beat_draining)
        elif self._arrived:
            self._record_in_ledger(self._record.beat)
        else:
            self._arrived = self._record_in_ledger(self._record.arrive)

    def _end(self) -> None:
        """End this worker. Its pool processes are well, so what they hold counts no crash."""
        log.error("the event loop hangs though the broker answers; ending")
        owners = [process_names.owner(child.pid) for child in psutil.Process().children()]
        self._record_in_ledger(lambda session: rescue.release(session, owners=owners))
        os._exit(HUNG)

    def _record_in_ledger(self, what: Callable[[Session], object]) -> bool:
        """Whether the ledger was reached."""
        try:
            with context.get().sessions.begin() as session:
                what(session)
        except SQLAlchemyError as error:
            log.warning("the ledger cannot be reached, the record will age", error=str(error))
            return False
        return True

    def _broker_answers(self) -> bool:
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

        def start(self, worker: Any) -> None:
            worker.timer.call_repeatedly(presence.every, presence.touch)
            worker.consumer.turned = presence.touch
            presence.start()

        def stop(self, worker: Any) -> None:  # noqa: ARG002 - Celery's signature
            presence.drain()  # the pool's processes end after this step

    app.steps["worker"].add(Pulse)
    signals.worker_shutting_down.connect(lambda **_: presence.drain(), weak=False)
    signals.worker_shutdown.connect(lambda **_: presence.stop(), weak=False)  # they have ended


def show_engines(here: Context, engines: Sequence[Mapping[str, str]]) -> None:
    """Record what this pool process has loaded now; it is for people, and may fail."""
    name = os.environ.get(context.WORKER)
    if name is None:  # not a worker's process
        return
    slot = getattr(current_process(), "index", 0)
    try:
        with here.sessions.begin() as session:
            workers.show_engines(session, name=name, slot=slot, engines=engines)
    except SQLAlchemyError as error:
        log.warning("the ledger cannot be reached to record what is loaded", error=str(error))
