"""Connections with an inbox, on a real broker: what reaches a consumer, and what is put back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from kombu.entity import Queue
from kombu.message import Message
from kombu.messaging import Consumer as KombuConsumer

from jobs.ledger import message_keys
from tests.jobs.ledger.building import Ledger
from tests.support import bad_messages
from tests.support.servers import Server
from workers import app
from workers.broker import envelope
from workers.broker.inbox import Inbox
from workers.broker.receipts import Receipts

QUEUE = "pool.transport"


class Consumer:
    """A connection that consumes the queue as a worker does, without working."""

    def __init__(self, celery: Celery, inbox: Inbox) -> None:
        self.received: list[Message] = []
        self.connection = celery.connection()
        self.connection.transport.inbox = inbox
        queues = [Queue(QUEUE)]
        consumer = KombuConsumer(self.connection, queues, on_message=self.received.append)
        consumer.consume()

    def drain(self) -> None:
        """Take one message, whether it is refused or received."""
        self.connection.drain_events(timeout=5)


@pytest.fixture
def broker(valkey: Server) -> Iterator[redis.Redis]:
    valkey.start()
    with redis.Redis.from_url(valkey.url) as client:
        client.delete(QUEUE)
        yield client


@pytest.fixture
def consumer(ledger: Ledger, broker: redis.Redis, valkey: Server, tmp_path: Path) -> Consumer:
    broker.lpush(QUEUE, b"garbage", signed(ledger))
    inbox = Inbox(ledger.sessions, worker="pool-1@here", receipts=Receipts(tmp_path))
    inbox.open()
    return Consumer(app.make(valkey.url), inbox)


def signed(ledger: Ledger) -> bytes:
    return bad_messages.signed("chunk", 17, queue=QUEUE, key=message_keys.read(ledger.sessions))


def test_only_a_signed_message_reaches_the_consumer(consumer: Consumer) -> None:
    consumer.drain()
    assert consumer.received == []
    consumer.drain()
    (message,) = consumer.received
    assert message.payload[0] == [17]
    message.ack()
    consumer.connection.close()


def test_a_message_that_was_not_begun_is_put_back_as_it_was_and_no_other(
    consumer: Consumer, broker: redis.Redis, ledger: Ledger
) -> None:
    consumer.drain()
    consumer.drain()
    assert broker.llen(QUEUE) == 0
    consumer.connection.close()
    raw: Any = broker.lindex(QUEUE, 0)
    hint, _ = envelope.read(raw, queue=QUEUE, key=message_keys.read(ledger.sessions))
    assert (hint.task, hint.arguments) == ("chunk", (17,))
    assert not broker.exists("unacked", "unacked_index")
