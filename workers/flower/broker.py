"""The queues that are there: what Redis has, for Flower's Broker tab and for ours.

Flower lists the queues that workers named when it last inspected them, which is at its start, and
without workers Celery's default queue. Ours are found in Redis instead: a queue with messages is a
key there, and every queue that a worker has consumed has a binding.
"""

from __future__ import annotations

import re
from typing import Any

import redis
from flower.api.tasks import GetQueueLengths
from flower.views.broker import BrokerView
from redis.exceptions import RedisError, ResponseError
from tornado import web

from workers.app import PLAN_QUEUE, host_queue, pool_queue
from workers.flower.reader import Reader

MOST_KEYS = 20_000
"""Keys of Redis that are looked at."""

_OURS = "|".join(
    [re.escape(PLAN_QUEUE), *(f"{re.escape(each)}.+?" for each in (pool_queue(""), host_queue("")))]
)
_KEY = re.compile(rf"(?:_kombu\.binding\.)?({_OURS})(?:\x06\x16\d)?")


class QueuesInRedis:
    """Names and lengths of our queues."""

    def __init__(self, redis_url: str) -> None:
        self._redis = redis.Redis.from_url(
            redis_url, socket_timeout=3, socket_connect_timeout=3, health_check_interval=5
        )

    def names(self) -> list[str]:
        """Of queues with messages or a binding, and of the planners'. Raises ``RedisError``."""
        found = {PLAN_QUEUE}
        for seen, key in enumerate(self._redis.scan_iter(count=1_000)):
            if seen >= MOST_KEYS:
                break
            if match := _KEY.fullmatch(key.decode(errors="replace")):
                found.add(match[1])
        return sorted(found)

    def lengths(self) -> dict[str, int | None]:
        """Messages by queue; ``None``: what lies there is no queue. Raises ``RedisError``."""
        names = self.names()
        pipeline = self._redis.pipeline(transaction=False)
        for name in names:
            pipeline.llen(name)
        found = pipeline.execute(raise_on_error=False)
        for each in found:
            if isinstance(each, RedisError) and not isinstance(each, ResponseError):
                raise each
        return {
            name: None if isinstance(length, ResponseError) else length
            for name, length in zip(names, found, strict=True)
        }


class _OurQueues:
    """Makes a handler of Flower list the queues that are there."""

    reader: Reader
    queues: QueuesInRedis
    names: list[str]

    def initialize(self, reader: Reader, queues: QueuesInRedis) -> None:
        self.reader, self.queues = reader, queues

    @web.authenticated
    async def get(self) -> Any:
        try:
            self.names = await self.reader.run(self.queues.names)
        except (RedisError, OSError):
            self.names = [PLAN_QUEUE]  # Flower says what is wrong with Redis
        return await super().get()  # type: ignore[misc]

    def get_active_queue_names(self) -> list[str]:
        """Flower asks for them."""
        return self.names


class OurBrokerView(_OurQueues, BrokerView):  # type: ignore[misc]
    """Flower's Broker tab."""


class OurQueueLengths(_OurQueues, GetQueueLengths):  # type: ignore[misc]
    """The same as JSON."""
