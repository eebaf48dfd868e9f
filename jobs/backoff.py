"""Backoff: how long to wait before the next try, and trying again until a time is over."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import tenacity
from tenacity.retry import retry_base

T = TypeVar("T")

_MOST_DOUBLINGS = 30


def delay(tries: int, *, first: float, longest: float) -> float:
    """Seconds to wait after the ``tries``-th failure in a row: doubled each time, up to a limit."""
    return min(first * 2.0 ** min(max(tries, 1) - 1, _MOST_DOUBLINGS), longest)


def retry(
    work: Callable[[], T],
    *,
    again: retry_base,
    first: float,
    longest: float,
    seconds: float,
    give_up: Callable[[tenacity.RetryCallState], T] | None = None,
) -> T:
    """Do the work until ``again`` wants no other try, or the next would begin after ``seconds``.

    Then the last exception is raised, or ``give_up`` called.
    """
    retrying = tenacity.Retrying(
        retry=again,
        wait=tenacity.wait_exponential(multiplier=first, max=longest),
        stop=tenacity.stop_before_delay(seconds),
        retry_error_callback=give_up,
        reraise=True,
    )
    return retrying(work)
