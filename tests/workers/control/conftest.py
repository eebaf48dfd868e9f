"""A control process's parts on real servers: the turn is taken by the test."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis
import sqlalchemy as sa

from jobs.settings import Settings
from jobs.tables import Chunk, ControlStatus, Event, Job, Project, Shard, Worker
from tests.jobs.ledger.building import Ledger
from tests.support.servers import Databases, Server
from workers import app
from workers.control.loop import Control
from workers.control.publisher import Publisher

WINDOW = 8
LONG = 3_600.0
"""Seconds that a control process has led: long enough to rescue."""


class Desk:
    """A ledger, a queue, and one control that leads."""

    def __init__(self, ledger: Ledger, redis_url: str) -> None:
        self.ledger = ledger
        self.settings = Settings(
            database_url=ledger.url, redis_url=redis_url, dispatch_window=WINDOW
        )
        self.redis = redis.Redis.from_url(redis_url)
        self.publisher = Publisher(app.make(redis_url), redis_url=redis_url)
        self.control = self.another_control()

    def another_control(self) -> Control:
        return Control(self.ledger.sessions, self.publisher, settings=self.settings)

    def turn(self) -> int:
        return self.control.turn(led_for=LONG)

    def queued(self, pool: str = "cpu") -> list[int]:
        """Chunk ids of the messages that wait, the next one first."""
        return [_argument(message) for message in reversed(self.messages(app.pool_queue(pool)))]

    def messages(self, queue: str) -> list[bytes]:
        found: Any = self.redis.lrange(queue, 0, -1)
        return list(found)

    def take(self, count: int = 1, *, pool: str = "cpu") -> list[int]:
        """Receive messages as a worker does."""
        taken: Any = self.redis.rpop(app.pool_queue(pool), count)
        return [_argument(message) for message in taken or []]


def _argument(message: bytes) -> int:
    arguments, _, _ = json.loads(base64.b64decode(json.loads(message)["body"]))
    return int(arguments[0])


@pytest.fixture(scope="module")
def ledger(fresh_database: Databases) -> Iterator[Ledger]:
    ledger = Ledger(fresh_database())
    yield ledger
    ledger.engine.dispose()


@pytest.fixture
def desk(ledger: Ledger, valkey: Server) -> Iterator[Desk]:
    valkey.start()
    desk = Desk(ledger, valkey.url)
    desk.redis.flushall()
    yield desk
    desk.redis.close()
    _clear(ledger)


def _clear(ledger: Ledger) -> None:
    """Control looks at every job there is: leave none to the next test."""
    with ledger.sessions.begin() as session:
        for table in (Event, Chunk, Shard, Job, Worker, ControlStatus):
            session.execute(sa.delete(table))
        session.execute(sa.update(Project).values(weight=1))
