"""An iterator that runs in a background thread, a few items ahead of its reader."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

DEPTH = 2
"""Items that may wait, unless something else is said; memory is bounded by it."""


@dataclass(frozen=True, slots=True)
class _End:
    """What the thread leaves last: nothing, or the error that stopped it."""

    error: BaseException | None = None


@contextmanager
def ahead(items: Iterable[T], *, depth: int = DEPTH) -> Iterator[Iterator[T]]:
    """Yield an iterator over ``items``, which are made in a thread of their own.

    The thread has ended when the block is left, however it is left; an error of ``items`` is
    raised to the reader in its place.
    """
    ready: queue.Queue[T | _End] = queue.Queue(maxsize=depth)
    stop = threading.Event()
    maker = threading.Thread(target=_make, args=(items, ready, stop), name="ahead", daemon=True)
    maker.start()
    try:
        yield _taken(ready)
    finally:
        stop.set()
        _drain(ready)
        maker.join()


def _make(items: Iterable[T], ready: queue.Queue[T | _End], stop: threading.Event) -> None:
    end = _End()
    try:
        for item in items:
            if stop.is_set():
                return
            ready.put(item)
    except BaseException as error:  # noqa: BLE001 (it is raised in the reader's thread)
        end = _End(error)
    ready.put(end)


def _taken(ready: queue.Queue[T | _End]) -> Iterator[T]:
    while not isinstance(item := ready.get(), _End):
        yield item
    if item.error is not None:
        raise item.error


def _drain(ready: queue.Queue[T | _End]) -> None:
    """Make room: a maker that waits to put its item sees the stop after it.

    At most one ``put`` waits; after it the maker puts one end mark at most, and both fit.
    """
    while True:
        try:
            ready.get_nowait()
        except queue.Empty:
            return
