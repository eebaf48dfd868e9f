"""A control process's parts on real servers: the test takes each turn of the loop."""

from __future__ import annotations

import base64
import contextlib
import functools
import json
from typing import Any

import redis

from jobs.ledger import message_keys
from jobs.settings import Settings
from tests.jobs.ledger.building import Ledger
from workers import app
from workers.control.leadership import Leadership
from workers.control.loop import Control, Turns
from workers.control.publisher import Publisher

WINDOW = 8
LONG = 3_600.0
"""Seconds of leadership that are enough to rescue."""


class ControlPlane:
    """A ledger, a broker, and one control process that leads."""

    def __init__(self, ledger: Ledger, redis_url: str) -> None:
        self.ledger = ledger
        self.settings = Settings(
            database_url=ledger.url, redis_url=redis_url, dispatch_window=WINDOW
        )
        self.redis = redis.Redis.from_url(redis_url)
        self.publisher = Publisher(
            app.make(redis_url),
            redis_url=redis_url,
            key=functools.partial(message_keys.read, ledger.sessions),
        )
        self._open = contextlib.ExitStack()

    def another_control(self) -> Control:
        return Control(self.publisher, settings=self.settings)

    @functools.cached_property
    def leadership(self) -> Leadership:
        """That of a control process which leads until ``close``."""
        leadership = self._open.enter_context(self.another_control().candidate())
        assert leadership.is_leader()
        return leadership

    @functools.cached_property
    def turns(self) -> Turns:
        return self.fresh_turns()

    def fresh_turns(self) -> Turns:
        """The turns of a leader that has taken none."""
        return Turns(self.leadership, self.publisher, settings=self.settings)

    def turn(self) -> int:
        return self.turns.turn(led_for=LONG)

    def close(self) -> None:
        """Lead no more."""
        self._open.close()
        self.redis.close()

    def queued(self, pool: str = "cpu") -> list[int]:
        """Chunk ids in a pool's queue, the next one first."""
        waiting = reversed(self.messages(app.pool_queue(pool)))
        return [_chunk_id(message) for message in waiting]

    def messages(self, queue: str) -> list[bytes]:
        waiting: Any = self.redis.lrange(queue, 0, -1)
        return list(waiting)

    def take(self, count: int = 1, *, pool: str = "cpu") -> list[int]:
        """Receive messages as a worker does."""
        taken: Any = self.redis.rpop(app.pool_queue(pool), count)
        return [_chunk_id(message) for message in taken or []]


def arguments(message: bytes) -> list[Any]:
    """The positional arguments of a Celery message."""
    positional, _, _ = json.loads(base64.b64decode(json.loads(message)["body"]))
    return list(positional)


def _chunk_id(message: bytes) -> int:
    return int(arguments(message)[0])
