"""How many messages to send, when to look at a queue again, and when a message counts as lost."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

SETTLING = timedelta(seconds=2)
"""Time for a message to be popped and acted on, before an empty queue means that it was lost."""


@dataclass(frozen=True)
class DispatchWindow:
    """Room for ``free`` messages; those sent before ``resend_before`` are sent again."""

    free: int
    resend_before: datetime | None


def open_window(
    *, now: datetime, size: int, queued: int, outstanding: int, redispatch: timedelta
) -> DispatchWindow:
    """The room in a queue that holds ``queued`` of the ``outstanding`` messages.

    A message is outstanding from when it is sent until a worker acts on it. If fewer are queued
    than outstanding, some were lost, or workers are acting on them at this moment. If the queue is
    empty and two seconds have passed, they were lost. Otherwise the two cases cannot be told apart,
    and only old messages are sent again: an extra message is harmless.
    """
    free = max(0, size - queued)
    if outstanding <= queued:
        return DispatchWindow(free, None)
    return DispatchWindow(free, now - (SETTLING if queued == 0 else redispatch))


def pause(*, sent: int, elapsed: float, size: int, shortest: float, longest: float) -> float:
    """Seconds until half of a full window of ``size`` messages is gone, within the two limits.

    Assumes that workers keep the rate at which they made room for the last ``sent`` messages, in
    ``elapsed`` seconds. For a queue that ran empty this rate is a lower bound; the pauses then
    halve until the queue is found half full.
    """
    if sent == 0:
        return longest
    return min(longest, max(shortest, elapsed * size / 2 / sent))
