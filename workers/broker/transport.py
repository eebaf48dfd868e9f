"""The transport of Celery's connections: kombu's for Redis, with an inbox before its consumers.

A message is taken out of Redis by the pop and is never noted there as unacknowledged: the row is
the work, and control sends lost messages again. So what a worker dies of does not come back by
itself (FLUSHALL would lose it anyway). Only messages that passed the inbox are delivered to Celery,
and only they are put back when their worker ends in order before it began them.
"""

from __future__ import annotations

from queue import Empty
from typing import Any

import kombu.transport
import structlog
from celery import Celery, bootsteps
from kombu.transport import redis as kombu_redis
from redis.exceptions import ResponseError

from workers.broker import replies
from workers.broker.envelope import Reason, Refused
from workers.broker.inbox import Inbox

log = structlog.get_logger()

OPTIONS: dict[str, Any] = {
    "ack_emulation": False,
    "socket_timeout": 5,  # a half-open connection must not hang a worker
    "socket_connect_timeout": 3,
    "socket_keepalive": True,
    "health_check_interval": 5,
}

BINDINGS = ("_kombu.binding", "_kombu.binding_permanent")
"""Prefixes of the keys where kombu notes that a queue is there."""


class Channel(kombu_redis.Channel):
    """Hands what it pops to the inbox of its transport, if it has one."""

    connection_class = replies.Connection
    connection_class_ssl = replies.SSLConnection

    def _brpop_read(self, **options: Any) -> bool:
        inbox: Inbox | None = self.connection.inbox
        if inbox is None:
            return bool(super()._brpop_read(**options))
        try:
            popped = self._popped(inbox, **options)
        finally:
            self._in_poll: Any = None
            self._flush_brpop_reauth()
        if not popped:
            raise Empty
        key, raw = popped
        queue = key.decode(errors="replace").rsplit(self.sep, 1)[0]
        self._queue_cycle.rotate(queue)
        with inbox.receiving(raw, queue=queue) as message:
            if message is not None:
                self._act_on(message, queue=queue)
        return True

    def _popped(self, inbox: Inbox, **options: Any) -> tuple[bytes, bytes] | None:
        try:
            popped: tuple[bytes, bytes] | None = self.client.parse_response(
                self.client.connection, "BRPOP", **options
            )
        except self.connection_errors:
            self.client.connection.disconnect()
            raise
        except ResponseError as error:
            self._drop_other_types(error, inbox=inbox)
            return None
        return popped

    def _act_on(self, message: dict[str, Any], *, queue: str) -> None:
        """Let Celery act on it. A message on which it raises is not put back."""
        try:
            self.connection._deliver(message, queue)  # noqa: SLF001 - as kombu's own method does
        except Exception:
            self.qos.ack(message["properties"]["delivery_tag"])
            raise

    def _handle_message(self, client: Any, response: Any) -> dict[str, Any]:
        """A command of the remote control; kombu delivers none that is empty."""
        command: dict[str, Any] = super()._handle_message(client, response)
        inbox: Inbox | None = self.connection.inbox
        if inbox is not None and isinstance(command["data"], bytes):
            command["data"] = inbox.command(command["data"]) or b""
        return command

    def _queue_bind(self, exchange: str, *arguments: Any) -> None:
        """A binding that is no set cannot be added to: what lies there is dropped."""
        try:
            super()._queue_bind(exchange, *arguments)
        except ResponseError as error:
            if not is_of_another_type(error):
                raise
            names = (self.keyprefix_queue, self.keyprefix_binding_permanent)
            for name in (*(each % exchange for each in names), self.keyprefix_binding_deadlines):
                self._create_client().delete(name)
            super()._queue_bind(exchange, *arguments)

    def _drop_other_types(self, error: ResponseError, *, inbox: Inbox) -> None:
        """Remove what lies where a queue should be. Raises any other error again."""
        if not is_of_another_type(error):
            raise error
        client = self._create_client()
        for queue in self.active_queues:
            for key in (self._q_for_pri(queue, step) for step in self.priority_steps):
                if drop_unless_list(client, key):
                    refused = Refused(Reason.NO_QUEUE, "a value of another type lay at its key")
                    inbox.refuse(refused, digest=key, queue=queue, size=0)


class Transport(kombu_redis.Transport):
    """Connections of all processes; only the consumers of a worker have an inbox."""

    Channel = Channel
    inbox: Inbox | None = None


def is_of_another_type(error: ResponseError) -> bool:
    """Whether Redis refuses a command because of the type of what lies at a key."""
    return str(error).startswith("WRONGTYPE")


def drop_unless_list(client: Any, key: str) -> bool:
    """Remove a value that is no list and so keeps a queue from working; ``True`` if there was."""
    if client.type(key) in {b"list", b"none"}:
        return False
    client.delete(key)
    log.error("a value of another type lay where a queue should be; removed", key=key)
    return True


def register() -> None:
    """Make ``redis://`` and ``rediss://`` mean this transport, in every process of ours."""
    name = f"{Transport.__module__}:{Transport.__qualname__}"
    kombu.transport.TRANSPORT_ALIASES.update({"redis": name, "rediss": name})


def attach(app: Celery, inbox: Inbox) -> None:
    """Put the inbox before the consumers of a worker, on each new connection."""

    class InboxStep(bootsteps.StartStopStep):  # type: ignore[misc]
        requires = ("celery.worker.consumer.connection:Connection",)

        def start(self, consumer: Any) -> None:
            consumer.connection.transport.inbox = inbox

    app.steps["consumer"].add(InboxStep)
