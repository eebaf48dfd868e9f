"""The queues that Flower's Broker tab lists: those that are there.

Flower lists the queues that workers named when it last inspected them, which is at its start, and
without workers Celery's default queue. Ours are found in Redis instead: a queue with messages is a
key there, and every queue that a worker has consumed has a binding.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable
from typing import Any

from flower.utils import broker

from workers.app import PLAN_QUEUE, host_queue, pool_queue

MOST_KEYS = 20_000
"""Keys of Redis that are looked at."""

_OURS = "|".join(
    [re.escape(PLAN_QUEUE), *(f"{re.escape(each)}.+?" for each in (pool_queue(""), host_queue("")))]
)
_KEY = re.compile(rf"(?:_kombu\.binding\.)?({_OURS})(?:\x06\x16\d)?")


def install() -> None:
    """Make Flower in this process list our queues."""
    listed = broker.RedisBase.queues

    async def queues(self: Any, names: Iterable[str]) -> Any:
        found = {PLAN_QUEUE, *names}
        async for key in _keys(self.redis):
            if match := _KEY.fullmatch(key):
                found.add(match[1])
        return await listed(self, sorted(found))

    broker.RedisBase.queues = queues


async def _keys(redis: Any) -> AsyncIterator[str]:
    seen = 0
    async for key in redis.scan_iter(count=1_000):
        seen += 1
        if seen > MOST_KEYS:
            return
        yield key.decode(errors="replace")
