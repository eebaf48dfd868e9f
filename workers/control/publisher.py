"""Sending hints: signed messages by queue name, with words for people who watch the queue."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable, Iterable

import redis
from celery import Celery
from kombu.exceptions import KombuError
from redis.exceptions import RedisError, ResponseError

from jobs.errors import ControlFlow
from jobs.ledger.dispatch_marks import Sent, SentStep
from jobs.monitoring import catalogue, meters
from jobs.queries.gangs import RankMessage
from workers.app import PLAN_QUEUE, host_queue, pool_queue
from workers.broker import envelope, transport
from workers.broker.envelope import SIGNATURE, Arguments, Hint


class BrokerAway(ControlFlow):
    """Redis did not answer; what was to be sent may or may not have been."""


class Publisher:
    """Publishes with short timeouts and without retries: what is lost is sent again later."""

    def __init__(self, app: Celery, *, redis_url: str, key: Callable[[], bytes]) -> None:
        """``key`` reads the key that signs messages; it is called once, at the first message."""
        self._app = app
        self._read_key = key
        self._redis = redis.Redis.from_url(
            redis_url, socket_timeout=3, socket_connect_timeout=3, health_check_interval=5
        )

    def queued_chunks(self, pool: str) -> int:
        """Messages that wait in a pool's queue."""
        return self._length(pool_queue(pool))

    def queued_steps(self) -> int:
        """Messages that wait in the planners' queue."""
        return self._length(PLAN_QUEUE)

    def send_chunks(self, pool: str, chunks: Iterable[Sent]) -> None:
        """One message per chunk."""
        for chunk in chunks:
            self._send("chunk", (chunk.chunk_id,), queue=pool_queue(pool), words=chunk.words)

    def empty_pool_queue(self, pool: str) -> None:
        """Forget what waits in a pool's queue, to send it in another order."""
        self._delete(pool_queue(pool))

    def send_step(self, sent: SentStep) -> None:
        """One message for a job's next step."""
        self._send(sent.step, (sent.subject.job_id,), queue=PLAN_QUEUE, words=sent.words)

    def send_rank(self, message: RankMessage) -> None:
        """One message for a rank, to its host's own queue."""
        self._send(
            "rank",
            (message.run_id, message.rank, message.incarnation),
            queue=host_queue(message.host),
            words=message.words,
        )

    def drop_host_queue(self, host: str) -> None:
        """Forget what waits for a host that is gone for good, and that its queue was there."""
        queue = host_queue(host)
        self._delete(queue, *(f"{each}.{queue}" for each in transport.BINDINGS))

    def _delete(self, *keys: str) -> None:
        try:
            self._redis.delete(*keys)
        except (RedisError, OSError) as error:
            raise BrokerAway(str(error)) from error

    @functools.cached_property
    def _key(self) -> bytes:
        return self._read_key()

    def _length(self, queue: str) -> int:
        try:
            length = self._redis.llen(queue)
        except ResponseError as error:
            self._mend(queue, error)
            return 0
        except (RedisError, OSError) as error:
            raise BrokerAway(str(error)) from error
        meters.level(catalogue.QUEUE_MESSAGES, length, queue=queue)
        return length

    def _send(self, task: str, arguments: Arguments, *, queue: str, words: str) -> None:
        hint = Hint(queue, task, str(uuid.uuid4()), arguments, words)
        try:
            self._app.send_task(
                task,
                args=arguments,
                queue=queue,
                task_id=hint.id,
                argsrepr=words,
                kwargsrepr="",
                headers={SIGNATURE: envelope.sign(hint, key=self._key)},
                retry=False,
            )
        except ResponseError as error:
            self._mend(queue, error)  # the message is sent again
        except (RedisError, OSError, KombuError) as error:
            raise BrokerAway(str(error)) from error

    def _mend(self, queue: str, error: ResponseError) -> None:
        """Remove what lies where the queue should be. Raises ``BrokerAway`` for another error."""
        try:
            if transport.is_of_another_type(error) and transport.drop_unless_list(
                self._redis, queue
            ):
                return
        except (RedisError, OSError) as away:
            raise BrokerAway(str(away)) from away
        raise BrokerAway(str(error)) from error
