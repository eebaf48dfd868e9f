"""How many messages to send, when to look again, and when one that was sent counts as lost."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

SETTLING = timedelta(seconds=2)
"""Time for a message to be popped and acted on, before an empty queue says that it was lost."""


@dataclass(frozen=True)
class Window:
    """Room for ``free`` messages; those sent before ``resend_before`` are sent again."""

    free: int
    resend_before: datetime | None


def open_window(
    *, now: datetime, size: int, queued: int, outstanding: int, redispatch: timedelta
) -> Window:
    """The room in a queue that holds ``queued`` of ``outstanding`` messages sent and not acted on.

    Fewer in the queue than outstanding: some were lost, or are being acted on this moment. With the
    queue empty all of them were, and two seconds tell the two apart. Otherwise nobody knows which,
    and only the old ones are sent again: a message too many is harmless.
    """
    free = max(0, size - queued)
    if outstanding <= queued:
        return Window(free, None)
    return Window(free, now - (SETTLING if queued == 0 else redispatch))


def pause(*, sent: int, over: float, size: int, shortest: float, longest: float) -> float:
    """Seconds until half of a full window of ``size`` messages is gone, within the two limits.

    Workers go on at the rate at which they made room for the ``sent`` messages, which was over so
    many seconds. Of an empty queue that is the least they do; then the pauses halve until it is
    found half full.
    """
    if sent == 0:
        return longest
    return min(longest, max(shortest, over * size / 2 / sent))
