"""What other schedulers got wrong: each a public report, and what happens here."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from typing import Any

import pytest

from jobs.schedules import cron
from jobs.schedules.calendar import fire_times
from jobs.schedules.policy import Action, CatchUp, Overlap, due_fires, overlap
from jobs.schedules.timing import Timing
from tests.jobs.schedules.oracle import walk


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def dues(timing: Timing, after: str, until: str) -> list[str]:
    fires = takewhile(lambda fire: fire.due <= utc(until), fire_times(timing, after=utc(after)))
    return [f"{fire.due:%m-%d %H:%M}" for fire in fires]


@pytest.mark.parametrize(
    ("fields", "after", "until", "expected"),
    [
        pytest.param(
            {"cron": "0 2 * * *", "time_zone": "Europe/Berlin"},
            "2026-10-24 22:00",
            "2026-10-25 22:00",
            ["10-25 00:00"],
            id="Kubernetes 121594: two o'clock twice fires once",
        ),
        pytest.param(
            {"cron": "0 2 * * *", "time_zone": "Europe/Berlin", "fold": "both"},
            "2026-10-24 22:00",
            "2026-10-25 22:00",
            ["10-25 00:00", "10-25 01:00"],
            id="Kubernetes 121594: with both it is two fires",
        ),
        pytest.param(
            {"cron": "0 * * * *", "time_zone": "America/Los_Angeles"},
            "2026-11-01 07:00",
            "2026-11-01 11:00",
            ["11-01 08:00", "11-01 09:00", "11-01 10:00", "11-01 11:00"],
            id="Celery 10107: an hourly line fires in every real hour",
        ),
        pytest.param(
            {"cron": "4 16 * * *", "time_zone": "America/New_York"},
            "2026-03-08 00:00",
            "2026-03-09 00:00",
            ["03-08 20:04"],
            id="Celery 9653, django-celery-beat 134: the day the clocks go forward",
        ),
        pytest.param(
            {"cron": "0 * * * *", "time_zone": "Asia/Kolkata"},
            "2026-11-30 12:00",
            "2026-11-30 14:00",
            ["11-30 12:30", "11-30 13:30"],
            id="Dagster 33448: an offset of half an hour",
        ),
        pytest.param(
            {"cron": "0 1 * * *", "time_zone": "America/New_York", "fold": "both"},
            "2026-11-01 00:00",
            "2026-11-02 00:00",
            ["11-01 05:00", "11-01 06:00"],
            id="Dagster 18022, 32250: both times of a fold, at two instants",
        ),
        pytest.param(
            {"cron": "0 12 * * 0", "time_zone": "America/New_York"},
            "2026-03-05 15:00",
            "2026-03-12 00:00",
            ["03-08 16:00"],
            id="cronie 218: days are days of the calendar",
        ),
        pytest.param(
            {"cron": "0 0 * * *", "time_zone": "Africa/Cairo"},
            "2026-04-23 00:00",
            "2026-04-25 00:00",
            ["04-23 22:00", "04-24 21:00"],
            id="Cairo: midnight in a gap fires at one",
        ),
        pytest.param(
            {"cron": "0 0 * * *", "time_zone": "Africa/Cairo", "gap": "skip"},
            "2026-04-23 00:00",
            "2026-04-25 00:00",
            ["04-24 21:00"],
            id="Cairo: with skip that day has no fire",
        ),
        pytest.param(
            {"cron": "15 2 * * *", "time_zone": "Australia/Lord_Howe"},
            "2026-10-02 20:00",
            "2026-10-05 00:00",
            ["10-03 15:30", "10-04 15:15"],
            id="Lord Howe: forward by half an hour",
        ),
        pytest.param(
            {"cron": "45 1 * * *", "time_zone": "Australia/Lord_Howe"},
            "2026-04-03 20:00",
            "2026-04-06 00:00",
            ["04-04 14:45", "04-05 15:15"],
            id="Lord Howe: back by half an hour",
        ),
        pytest.param(
            {"cron": "0 2 * * *", "time_zone": "Pacific/Apia"},
            "2011-12-28 12:00",
            "2012-01-01 00:00",
            ["12-29 12:00", "12-30 12:00", "12-31 12:00"],
            id="Apia: the day that was left out, two o'clock",
        ),
        pytest.param(
            {"cron": "0 0 * * *", "time_zone": "Pacific/Apia"},
            "2011-12-28 12:00",
            "2012-01-01 00:00",
            ["12-29 10:00", "12-30 10:00", "12-31 10:00"],
            id="Apia: the day that was left out, midnight",
        ),
        pytest.param(
            {"cron": "30 23 * * *", "time_zone": "America/Nuuk"},
            "2026-03-28 00:00",
            "2026-03-30 12:00",
            ["03-28 01:30", "03-29 01:00", "03-30 00:30"],
            id="Nuuk: a gap that ends at midnight shifts into the next day",
        ),
    ],
)
def test_fires_where_clocks_change(
    fields: dict[str, Any], after: str, until: str, expected: list[str]
) -> None:
    assert dues(Timing.model_validate(fields), after, until) == expected


@pytest.mark.parametrize(("mode", "jobs"), [("latest", 1), ("all", 101)])
def test_kubernetes_42649_control_is_down_for_101_minutes(mode: str, jobs: int) -> None:
    timing = Timing(cron=("* * * * *",))
    down = utc("2026-11-30 12:00")
    catch_up = CatchUp.model_validate({"mode": mode})
    back = down + timedelta(minutes=101)
    found = due_fires(timing, schedule_id="s", cursor=down, now=back, catch_up=catch_up)
    assert len(found.let_go) == jobs
    assert found.following is not None
    assert found.following.due == back + timedelta(minutes=1)


def test_celery_10107_after_a_fire_in_the_first_of_two_hours_the_second_is_due() -> None:
    timing = Timing(cron=("0 * * * *",), time_zone="America/Los_Angeles")
    last, now = utc("2026-11-01 08:00"), utc("2026-11-01 09:00")
    local = last.astimezone(timing.zone)
    found = due_fires(timing, schedule_id="s", cursor=last, last_local=local, now=now)
    assert [fire.due for fire in found.let_go] == [now]


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
@pytest.mark.parametrize("line", ["0 2 * * *", "30 1 * * *", "0 * * * *", "*/5 1-3 * * *"])
@pytest.mark.parametrize("fold", ["first", "second", "both"])
@pytest.mark.slow
def test_celery_6438_no_next_fire_is_in_the_past(zone: str, line: str, fold: str) -> None:
    timing = Timing.model_validate({"cron": line, "time_zone": zone, "fold": fold})
    for change in walk(zone).changes():
        cursor = change - timedelta(days=3)
        for now in (cursor + timedelta(hours=5.3) * turn for turn in range(1, 30)):
            found = due_fires(timing, schedule_id="s", cursor=cursor, now=now)
            assert found.following is not None
            assert now < found.following.due <= now + timedelta(hours=26)
            cursor = found.last.due if found.last else cursor


def test_redbeat_154_a_schedule_for_midnight_saved_at_23_55_is_not_due() -> None:
    saved = utc("2026-11-30 23:55")
    timing = Timing(cron=("0 0 * * *",))
    found = due_fires(timing, schedule_id="s", cursor=saved, now=saved)
    assert (found.let_go, found.missed) == ((), ())
    assert found.following_at == utc("2026-12-01 00:00")


def test_redbeat_233_a_fire_while_control_was_down_comes_once() -> None:
    timing = Timing(cron=("0 14 * * *",))
    cursor = utc("2026-11-29 14:00")
    found = due_fires(timing, schedule_id="s", cursor=cursor, now=utc("2026-11-30 14:01"))
    assert [fire.due for fire in found.let_go] == [utc("2026-11-30 14:00")]
    assert found.last is not None
    again = due_fires(timing, schedule_id="s", cursor=found.last.due, now=utc("2026-11-30 14:02"))
    assert again.let_go == ()


@pytest.mark.parametrize(
    ("zone", "inside"),
    [
        ("Europe/Berlin", "2026-03-29 00:59:59.5"),  # just before the gap
        ("Europe/Berlin", "2026-10-25 00:30"),  # in the first of two hours
        ("Europe/Berlin", "2026-10-25 01:30"),  # in the second
        ("Africa/Cairo", "2026-04-23 21:59:59"),
        ("Pacific/Apia", "2011-12-30 09:59:59"),
    ],
)
@pytest.mark.parametrize("line", ["* * * * *", "*/7 2 * * *", "30 0-3 * * *", "0 0 29 2 *"])
@pytest.mark.parametrize("gap", ["shift", "skip"])
@pytest.mark.parametrize("fold", ["first", "second", "both"])
def test_apscheduler_980_1059_a_fire_asked_for_in_a_change_exists(
    *, zone: str, inside: str, line: str, gap: str, fold: str
) -> None:
    timing = Timing.model_validate({"cron": line, "time_zone": zone, "gap": gap, "fold": fold})
    for fire in islice(fire_times(timing, after=utc(inside)), 10):
        assert fire.due > utc(inside)
        assert fire.due.astimezone(timing.zone) == fire.local


def test_temporal_11530_one_fire_waits_and_it_is_the_newest() -> None:
    waits, new = utc("2026-11-30 12:00"), utc("2026-11-30 13:00")
    found = overlap(Overlap.BUFFER_ONE, running=["job-1"], buffered=[waits], new=new)
    assert (found.action, found.replaces) == (Action.BUFFER, waits)
    assert found.replaced_reason is not None
    assert "the fire of 2026-11-30T13:00:00Z took its place" in found.replaced_reason


@pytest.mark.parametrize(
    "line",
    ["0 0 1--100000000 * *", f"{','.join(f'{each % 60}-59' for each in range(400))} * * * *"],
)
def test_oban_croniter_a_line_that_would_take_long_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"the day-of-month must be|at most 500 characters"):
        cron.checked(line)


@pytest.mark.parametrize(
    ("line", "old", "new", "expected"),
    [
        ("0 2 * * *", 2, 1, "12-02 01:00"),  # two o'clock comes again an hour later
        ("0 2 * * *", 2, 3, "12-01 23:00"),  # the next one is earlier than it was promised
        ("0 * * * *", 2, 1, "12-01 01:00"),  # a real hour later
    ],
)
def test_no_fire_repeats_when_the_data_of_the_zone_change(
    line: str, old: int, new: int, expected: str
) -> None:
    before = Timing(cron=(line,), time_zone=f"Etc/GMT-{old}")
    changed = Timing(cron=(line,), time_zone=f"Etc/GMT-{new}")
    last = next(fire_times(before, after=utc("2026-11-30 23:59")))
    assert last.due == utc("2026-12-01 00:00")
    following = next(fire_times(changed, after=last.due, last_local=last.local))
    assert f"{following.due:%m-%d %H:%M}" == expected
