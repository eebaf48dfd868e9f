"""Which fires are let go after an outage, and what a fire does while another runs."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise, takewhile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.schedules.calendar import fire_times, jittered
from jobs.schedules.policy import (
    MOST_BUFFERED,
    MOST_COUNTED,
    Action,
    CatchUp,
    Decision,
    DueFires,
    Overlap,
    due_fires,
    next_fire,
    overlap,
    unbuffered,
)
from jobs.schedules.timing import Timing

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
MINUTELY = Timing(cron=("* * * * *",))
ALL = CatchUp(mode="all")


def due(
    timing: Timing = MINUTELY,
    *,
    since: datetime = NOON,
    now: datetime,
    catch_up: CatchUp | None = None,
    fires_left: int | None = None,
) -> DueFires:
    return due_fires(
        timing,
        schedule_id="s",
        cursor=since,
        now=now,
        catch_up=catch_up,
        fires_left=fires_left,
    )


def minutes(found: DueFires) -> list[int]:
    return [(fire.due - NOON) // MINUTE for fire in found.let_go]


def test_nothing_is_due_before_its_time() -> None:
    found = due(now=NOON + timedelta(seconds=59.9))
    assert (found.let_go, found.missed, found.last) == ((), (), None)
    assert found.following_at == NOON + MINUTE


def test_latest_lets_one_go_after_an_outage_and_records_the_others() -> None:
    found = due(now=NOON + 101 * MINUTE)
    assert minutes(found) == [101]
    (missed,) = found.missed
    assert (missed.count, missed.first.due, missed.last.due) == (
        100,
        NOON + MINUTE,
        NOON + 100 * MINUTE,
    )
    assert "a later fire was due as well" in missed.reason
    assert found.following is not None
    assert found.following.due == NOON + 102 * MINUTE


def test_all_lets_every_fire_of_an_outage_go() -> None:
    found = due(now=NOON + 101 * MINUTE, catch_up=ALL)
    assert minutes(found) == list(range(1, 102))
    assert found.missed == ()


def test_all_has_a_limit_and_says_so() -> None:
    found = due(now=NOON + 101 * MINUTE, catch_up=CatchUp(mode="all", limit=10))
    assert minutes(found) == list(range(92, 102))
    (missed,) = found.missed
    assert (missed.count, missed.reason) == (
        91,
        "more than 10 fires were due, the limit of catch-up: the oldest are missed",
    )


@pytest.mark.parametrize("mode", ["latest", "all"])
def test_a_fire_outside_of_the_window_is_missed(mode: str) -> None:
    hourly = Timing(cron=("@hourly",))
    catch_up = CatchUp.model_validate({"mode": mode, "window": "90m"})
    found = due(hourly, now=NOON + timedelta(hours=10, minutes=45), catch_up=catch_up)
    assert [fire.due.hour for fire in found.let_go] == [22]
    assert [(each.count, each.last.due.hour) for each in found.missed] == [(9, 21)]
    assert "later than the catch-up window of 1 hour 30 minutes" in found.missed[0].reason


def test_a_schedule_whose_fires_are_all_outside_of_the_window_goes_on() -> None:
    daily = Timing(cron=("@daily",))
    catch_up = CatchUp.model_validate({"window": "10m"})
    found = due(daily, now=NOON + timedelta(days=3), catch_up=catch_up)
    assert (found.let_go, found.missed[0].count) == ((), 3)
    assert found.last == found.missed[0].last
    assert found.following is not None
    assert found.following.due == datetime(2026, 12, 4, tzinfo=UTC)


def test_an_outage_of_ten_years_is_judged_at_once() -> None:
    began = time.perf_counter()
    found = due(now=NOON + timedelta(days=3_650))
    assert time.perf_counter() - began < 2
    assert len(found.let_go) == 1
    assert [each.count for each in found.missed] == [MOST_COUNTED, MOST_COUNTED]


def test_a_schedule_ends_after_its_number_of_fires() -> None:
    found = due(now=NOON + 5 * MINUTE, catch_up=ALL, fires_left=3)
    assert minutes(found) == [1, 2, 3]
    assert found.following is None
    assert due(now=NOON + 5 * MINUTE, fires_left=0) == DueFires()


def test_a_schedule_ends_at_its_end() -> None:
    timing = Timing(cron=("* * * * *",), end=NOON + 2 * MINUTE)
    found = due(timing, now=NOON + 5 * MINUTE, catch_up=ALL)
    assert (minutes(found), found.following) == ([1, 2], None)


def test_jitter_holds_a_fire_back_and_never_past_the_next() -> None:
    timing = Timing(every=MINUTE, jitter=timedelta(hours=1))
    fires = list(islice(fire_times(timing, after=NOON), 200))
    late = [
        jittered(fire, schedule_id="s", timing=timing, next_due=following.due) - fire.due
        for fire, following in pairwise(fires)
    ]
    assert all(timedelta() <= each < MINUTE for each in late)
    assert len(set(late)) > 150
    assert max(late) > 0.9 * MINUTE
    for fire, each in zip(fires, late, strict=False):
        before, after = fire.due + each - timedelta(microseconds=1), fire.due + each
        assert fire not in due(timing, since=fire.due - MINUTE / 2, now=before).let_go
        assert fire in due(timing, since=fire.due - MINUTE / 2, now=after).let_go


def test_jitter_is_the_same_in_every_process_and_spreads_schedules() -> None:
    timing = Timing(cron=("@daily",), jitter=timedelta(minutes=10))
    again = [next_fire(timing, schedule_id=f"s{each % 100}", after=NOON) for each in range(200)]
    assert again[:100] == again[100:]
    assert len(set(again)) == 100


@given(
    steps=st.lists(st.integers(0, 400), min_size=1, max_size=12),
    mode=st.sampled_from(["latest", "all"]),
    window=st.sampled_from(["10s", "1m", "5m", "1h"]),
    limit=st.integers(1, 5),
    jitter=st.sampled_from(["0s", "30s", "10m"]),
)
def test_every_fire_is_let_go_or_missed_exactly_once_in_order(
    *, steps: list[int], mode: str, window: str, limit: int, jitter: str
) -> None:
    timing = Timing.model_validate({"cron": ["*/2 * * * *", "*/3 * * * *"], "jitter": jitter})
    catch_up = CatchUp.model_validate({"mode": mode, "window": window, "limit": limit})
    cursor = now = NOON
    considered: list[datetime] = []
    for step in steps:
        now += timedelta(seconds=step)
        found = due(timing, since=cursor, now=now, catch_up=catch_up)
        for missed in found.missed:
            stretch = upto(timing, missed.last.due, after=cursor)
            stretch = [each for each in stretch if each >= missed.first.due]
            assert len(stretch) == missed.count
            considered += stretch
        considered += [fire.due for fire in found.let_go]
        assert found.following_at is not None
        assert found.following_at > now
        assert len(found.let_go) <= catch_up.most
        if found.last is not None:
            cursor = found.last.due
    if considered:
        assert considered == upto(timing, considered[-1], after=NOON)
    if jitter == "0s":
        assert considered == upto(timing, now, after=NOON)


def upto(timing: Timing, until: datetime, *, after: datetime) -> list[datetime]:
    fires = fire_times(timing, after=after)
    return [fire.due for fire in takewhile(lambda fire: fire.due <= until, fires)]


EARLIER = [NOON - 2 * MINUTE, NOON - MINUTE]


@pytest.mark.parametrize("policy", Overlap)
def test_a_fire_starts_when_nothing_runs(policy: Overlap) -> None:
    assert overlap(policy, running=[], buffered=[], new=NOON) == Decision(Action.START)


@pytest.mark.parametrize(
    ("policy", "buffered", "decision"),
    [
        (
            Overlap.SKIP,
            [],
            Decision(Action.SKIP, reason="job-1 of an earlier fire still runs"),
        ),
        (
            Overlap.BUFFER_ONE,
            [],
            Decision(Action.BUFFER, reason="job-1 of an earlier fire still runs"),
        ),
        (
            Overlap.BUFFER_ONE,
            EARLIER[1:],
            Decision(
                Action.BUFFER,
                reason="job-1 of an earlier fire still runs",
                replaces=EARLIER[1],
                replaced_reason="the fire of 2026-11-30T12:00:00Z took its place: "
                "one at most waits",
            ),
        ),
        (
            Overlap.BUFFER_ALL,
            EARLIER,
            Decision(Action.BUFFER, reason="job-1 of an earlier fire still runs"),
        ),
        (
            Overlap.BUFFER_ALL,
            [NOON] * MOST_BUFFERED,
            Decision(Action.SKIP, reason="1000 earlier fires wait: no more may"),
        ),
        (Overlap.CANCEL_OTHER, [], Decision(Action.START, cancels=("job-1",))),
        (Overlap.ALLOW, [], Decision(Action.START)),
    ],
)
def test_a_fire_while_a_job_of_an_earlier_one_runs(
    policy: Overlap, buffered: list[datetime], decision: Decision
) -> None:
    assert overlap(policy, running=["job-1"], buffered=buffered, new=NOON) == decision


def test_a_fire_does_not_overtake_one_that_waits() -> None:
    found = overlap(Overlap.BUFFER_ALL, running=[], buffered=EARLIER, new=NOON)
    assert found == Decision(Action.BUFFER, reason="an earlier fire waits")


@pytest.mark.parametrize(
    ("policy", "running", "buffered", "starts"),
    [
        (Overlap.BUFFER_ALL, [], 3, 1),
        (Overlap.BUFFER_ALL, ["job-1"], 3, 0),
        (Overlap.BUFFER_ONE, [], 1, 1),
        (Overlap.BUFFER_ONE, [], 0, 0),
        (Overlap.ALLOW, ["job-1"], 2, 2),
        (Overlap.SKIP, [], 2, 1),
    ],
)
def test_fires_that_wait_start_one_at_a_time(
    policy: Overlap, running: list[str], buffered: int, starts: int
) -> None:
    assert unbuffered(policy, running=running, buffered=buffered) == starts
