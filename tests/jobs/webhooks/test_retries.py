"""Backoff of webhooks: for three days, the same in every process."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.webhooks import retries

START = datetime(2026, 12, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("tries", "seconds"),
    [
        (1, 5),
        (2, 25),
        (3, 90),
        (4, 480),
        (5, 1_200),
        (6, 1_800),
        (7, 3_600),
        (8, 7_200),
        (9, 7_200),
        (40, 7_200),
    ],
)
def test_the_delay_behind_each_try(tries: int, seconds: float) -> None:
    found = retries.next_try(tries=tries, first_tried_at=START, now=START, key="evt_1")
    assert found is not None
    assert 0.9 * seconds <= (found - START).total_seconds() <= seconds


def test_a_receiver_that_stays_away_is_tried_for_three_days_to_the_second() -> None:
    now, tries = START, 0
    while True:
        tries += 1
        following = retries.next_try(tries=tries, first_tried_at=START, now=now, key="evt_1")
        if following is None:
            break
        assert following > now
        now = following
    assert now - START == retries.LONGEST
    assert 40 < tries < 60


@given(st.integers(1, 100), st.text(max_size=8), st.floats(0, 300_000))
def test_the_next_try_lies_ahead_and_is_the_same_in_every_process(
    tries: int, key: str, seconds: float
) -> None:
    now = START + timedelta(seconds=seconds)
    one, other = (
        retries.next_try(tries=tries, first_tried_at=START, now=now, key=key) for _ in range(2)
    )
    assert one == other
    assert (one is None) == (now >= START + retries.LONGEST)
    assert one is None or now < one <= START + retries.LONGEST


def test_what_failed_together_does_not_come_together() -> None:
    keys = [f"evt_{number}" for number in range(100)]
    found = {retries.next_try(tries=8, first_tried_at=START, now=START, key=key) for key in keys}
    assert len(found) == 100


@pytest.mark.parametrize(("failures", "seconds"), [(1, 5), (2, 25), (3, 90), (4, 300), (99, 300)])
def test_an_endpoint_that_fails_rests_for_five_minutes_at_most(
    failures: int, seconds: float
) -> None:
    assert retries.rest(failures) == timedelta(seconds=seconds)
