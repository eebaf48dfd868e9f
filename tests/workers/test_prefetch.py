from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from workers.prefetch import DEPTH, prefetch


def names() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


def endless(made: list[int]) -> Iterator[int]:
    while True:
        made.append(len(made))
        yield made[-1]


def failing() -> Iterator[int]:
    yield 1
    raise MemoryError("no more")


def test_items_come_in_order() -> None:
    with prefetch(range(100)) as items:
        assert list(items) == list(range(100))
    assert "prefetch" not in names()


def test_an_empty_iterable_ends_at_once() -> None:
    nothing: list[int] = []
    with prefetch(nothing) as items:
        assert list(items) == []


def test_items_are_made_in_another_thread() -> None:
    with prefetch(threading.current_thread().name for _ in range(3)) as items:
        assert set(items) == {"prefetch"}


def test_the_thread_ends_when_the_consumer_stops_early() -> None:
    with prefetch(endless([])) as items:
        assert next(items) == 0
    assert "prefetch" not in names()


def test_the_thread_ends_when_the_consumer_raises() -> None:
    with pytest.raises(RuntimeError, match="stop"), prefetch(endless([])):
        raise RuntimeError("stop")
    assert "prefetch" not in names()


def test_the_thread_makes_no_more_than_a_few_items_ahead() -> None:
    made: list[int] = []
    with prefetch(endless(made)) as items:
        for taken in range(1, 50):
            next(items)
            assert len(made) <= taken + DEPTH + 1


def test_as_many_items_wait_as_the_depth_allows() -> None:
    made: list[int] = []
    with prefetch(endless(made), depth=7) as items:
        next(items)
        end = time.monotonic() + 10
        while len(made) < 9 and time.monotonic() < end:
            time.sleep(0.01)
        assert len(made) == 9  # one taken, seven that wait, one that finds no room


def test_the_thread_ends_although_its_last_items_fill_the_queue() -> None:
    with prefetch([1, 2], depth=1):
        pass
    assert "prefetch" not in names()


def test_an_error_of_the_producer_is_raised_to_the_consumer_after_the_items_before_it() -> None:
    with prefetch(failing()) as items:
        assert next(items) == 1
        with pytest.raises(MemoryError, match="no more"):
            next(items)
    assert "prefetch" not in names()
