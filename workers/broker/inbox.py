"""What a worker does with each message before Celery sees it, and with those that it refuses.

The event loop calls ``receiving`` and ``command``. A thread calls ``settle``, which writes down
what was refused: no message can make a worker wait for Postgres.
"""

from __future__ import annotations

import dataclasses
import hashlib
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from sqlalchemy.exc import SQLAlchemyError

from jobs.database import Sessions
from jobs.ledger import message_keys, refused_messages
from jobs.ledger.refused_messages import Death, Refusal
from jobs.queries import refused_messages as queries
from workers.broker import envelope, remote_control
from workers.broker.envelope import Reason, Refused
from workers.broker.receipts import Receipts

log = structlog.get_logger()

MOST_AT_ONCE = 50
"""Different refusals that are written down and logged between two calls of ``settle``."""

REMOTE_CONTROL = "remote control"
"""Stands where a refusal names its queue."""

AGAIN_SECONDS = 1.0

CONNECTION_LOST = (RedisConnectionError, RedisTimeoutError, OSError)
"""Celery connects again after these."""


class Inbox:
    """The messages of one worker."""

    def __init__(self, sessions: Sessions, *, worker: str, receipts: Receipts) -> None:
        self._sessions = sessions
        self._worker = worker
        self._receipts = receipts
        self._lock = threading.Lock()
        self._refusals: dict[str, Refusal] = {}
        self._more = 0
        self._key = b""
        self._key_doubted = False
        self._quarantined: frozenset[str] = frozenset()

    def open(self) -> None:
        """Read the key, and report on what workers of this machine died; wait for Postgres."""
        while True:
            try:
                self._look()
            except SQLAlchemyError as error:
                log.warning("a worker cannot start yet: Postgres is needed", error=str(error))
                time.sleep(AGAIN_SECONDS)
            else:
                return

    @contextmanager
    def receiving(self, raw: bytes, *, queue: str) -> Iterator[dict[str, Any] | None]:
        """The message for Celery while it is being acted on; ``None``: it was refused.

        What the block raises is refused as well, unless it is about the connection.
        """
        size = getattr(raw, "size", len(raw))
        digest = hashlib.sha256(raw).hexdigest()
        self._receipts.write(Death(digest, queue, size, self._worker))
        message = None
        try:
            self._check_quarantine(digest)
            hint, signature = envelope.read(raw, queue=queue, key=self._key)
            digest = hint.digest
            self._receipts.write(
                Death(digest, queue, size, self._worker, hint.task, hint.arguments[0])
            )
            self._check_quarantine(digest)
            tag = str(uuid.uuid4())
            message = envelope.celery_message(hint, signature=signature, tag=tag)
        except Refused as refused:
            self.refuse(refused, digest=digest, queue=queue, size=size)
        try:
            yield message
        except CONNECTION_LOST:
            raise
        except Exception as error:
            log.exception("Celery cannot act on a message", queue=queue)
            raised = Refused(Reason.RAISED, f"Celery raised {type(error).__name__}")
            self.refuse(raised, digest=digest, queue=queue, size=size)
        finally:
            self._receipts.clear()

    def command(self, raw: bytes) -> bytes | None:
        """A question for Celery's remote control; ``None``: it was refused."""
        try:
            return remote_control.vetted(raw)
        except Refused as refused:
            digest = hashlib.sha256(raw).hexdigest()
            size = getattr(raw, "size", len(raw))
            self.refuse(refused, digest=digest, queue=REMOTE_CONTROL, size=size)
            return None

    def refuse(self, refused: Refused, *, digest: str, queue: str, size: int) -> None:
        """Note and log a refusal; beyond ``MOST_AT_ONCE`` different ones, only count it."""
        if refused.reason is Reason.BAD_SIGNATURE:
            self._key_doubted = True
        refusal = Refusal(digest, queue, refused.reason, refused.message, size)
        with self._lock:
            known = self._refusals.get(digest)
            if known is None and len(self._refusals) >= MOST_AT_ONCE:
                self._more += 1
                return
            self._refusals[digest] = _added(known, refusal)
        if known is None:
            log.warning("a message was refused", **dataclasses.asdict(refusal))

    def settle(self) -> None:
        """Write down what was refused, read the quarantine, and a key that is in doubt again."""
        with self._lock:
            refusals, self._refusals = self._refusals, {}
            more, self._more = self._more, 0
        if more:
            log.warning("more messages were refused", count=more)
        try:
            self._look(refusals)
        except SQLAlchemyError as error:
            log.warning("the ledger cannot be reached to record refusals", error=str(error))
            with self._lock:
                self._refusals = {**refusals, **self._refusals}

    def _check_quarantine(self, digest: str) -> None:
        if digest in self._quarantined:
            raise Refused(Reason.QUARANTINED, "workers died while they acted on it")

    def _look(self, refusals: dict[str, Refusal] | None = None) -> None:
        deaths = self._receipts.left_behind
        with self._sessions.begin() as session:
            for death in deaths:
                caught = refused_messages.record_death(session, death)
                log.error("a worker died of a message", quarantined=caught, **vars(death))
            found = list((refusals or {}).values())
            refused_messages.record(session, found, worker=self._worker)
            self._quarantined = queries.quarantined(session)
            if not self._key or self._key_doubted:
                self._key = message_keys.get(session)
        self._key_doubted = False
        self._receipts.left_behind = []


def _added(known: Refusal | None, refusal: Refusal) -> Refusal:
    times = 0 if known is None else known.times
    return dataclasses.replace(refusal, times=times + 1)
