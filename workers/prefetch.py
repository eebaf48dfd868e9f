"""An iterator that runs in a background thread, a few items ahead of its consumer."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

DEPTH = 2
"""Default number of items in the queue, which bounds memory (promise P5)."""


@dataclass(frozen=True, slots=True)
class _End:
    """The last thing in the queue: the error that stopped the thread, or none."""

    error: BaseException | None = None


@contextmanager
def prefetch(items: Iterable[T], *, depth: int = DEPTH) -> Iterator[Iterator[T]]:
    """Yield an iterator over ``items``, which a background thread produces.

    The thread has ended when the block is left, however it is left. An error that ``items`` raises
    is raised to the consumer, after the items before it.
    """
    ready: queue.Queue[T | _End] = queue.Queue(maxsize=depth)
    stop = threading.Event()
    producer = threading.Thread(
        target=_produce, args=(items, ready, stop), name="prefetch", daemon=True
    )
    producer.start()
    try:
        yield _consume(ready)
    finally:
        stop.set()
        while producer.is_alive():  # it may wait in ``put``, whatever the depth
            _drain(ready)
            producer.join(timeout=0.01)


def _produce(items: Iterable[T], ready: queue.Queue[T | _End], stop: threading.Event) -> None:
    end = _End()
    try:
        for item in items:
            if stop.is_set():
                return
            ready.put(item)
    except BaseException as error:  # noqa: BLE001 (raised in the consumer's thread)
        end = _End(error)
    ready.put(end)


def _consume(ready: queue.Queue[T | _End]) -> Iterator[T]:
    while not isinstance(item := ready.get(), _End):
        yield item
    if item.error is not None:
        raise item.error


def _drain(ready: queue.Queue[T | _End]) -> None:
    """Empty the queue, so that a producer that waits in ``put`` goes on and sees ``stop``."""
    while True:
        try:
            ready.get_nowait()
        except queue.Empty:
            return
