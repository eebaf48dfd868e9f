"""How much room a queue has, and when a message counts as lost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.decisions.dispatch_window import SETTLING, DispatchWindow, open_window, pause

NOW = datetime(2026, 1, 1, tzinfo=UTC)
REDISPATCH = timedelta(seconds=30)


def window(*, queued: int, outstanding: int, size: int = 32) -> DispatchWindow:
    return open_window(
        now=NOW, size=size, queued=queued, outstanding=outstanding, redispatch=REDISPATCH
    )


@given(st.integers(0, 100), st.integers(0, 200), st.integers(1, 64))
def test_the_room_never_lets_a_queue_grow_over_its_size(
    queued: int, outstanding: int, size: int
) -> None:
    free = window(queued=queued, outstanding=outstanding, size=size).free
    assert free >= 0
    assert free == 0 or queued + free == size


def test_nothing_is_sent_again_while_every_message_is_in_the_queue() -> None:
    assert window(queued=5, outstanding=5).resend_before is None


def test_messages_missing_from_an_empty_queue_are_lost_once_they_had_time_to_settle() -> None:
    assert window(queued=0, outstanding=5).resend_before == NOW - SETTLING


def test_messages_missing_from_a_queue_that_holds_some_are_sent_again_when_they_are_old() -> None:
    assert window(queued=3, outstanding=5).resend_before == NOW - REDISPATCH


SHORTEST, LONGEST, SIZE = 0.05, 1.0, 32


def pause_after(sent: int, *, elapsed: float) -> float:
    return pause(sent=sent, elapsed=elapsed, size=SIZE, shortest=SHORTEST, longest=LONGEST)


@pytest.mark.parametrize(
    ("sent", "elapsed", "seconds"),
    [
        (0, 1.0, LONGEST),
        (1, 1.0, LONGEST),  # a full queue lasts half a minute
        (16, 1.0, LONGEST),
        (32, 1.0, 0.5),
        (64, 1.0, 0.25),
        (8, 0.25, 0.5),
        (32, 0.0, SHORTEST),
        (1_000, 1.0, SHORTEST),
    ],
)
def test_control_looks_again_when_half_of_the_queue_will_be_gone(
    sent: int, elapsed: float, seconds: float
) -> None:
    assert pause_after(sent, elapsed=elapsed) == seconds


@given(st.floats(0.01, SIZE / 2 / SHORTEST))
def test_workers_of_any_steady_speed_soon_never_find_the_queue_empty(per_second: float) -> None:
    elapsed = LONGEST
    for turn in range(20):
        gone = per_second * elapsed
        if turn >= 10:  # the first turns start from an empty queue and an unknown speed
            assert gone <= 0.75 * SIZE
        elapsed = pause_after(min(SIZE, int(gone)), elapsed=elapsed)
