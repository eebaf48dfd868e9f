"""What a timing takes, and what its refusals name."""

from __future__ import annotations

import contextlib
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cronsim import CronSim
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from jobs import durations
from jobs.schedules import cron
from jobs.schedules.timing import Timing
from jobs.schedules.words import in_words


def refusal(**fields: Any) -> tuple[str, str]:
    """The field that is refused, and the message."""
    with pytest.raises(ValidationError) as raised:
        Timing.model_validate(fields)
    error = raised.value.errors()[0]
    return ".".join(str(each) for each in error["loc"]), error["msg"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("61 * * * *", "the minute must be 0 to 59, such as 5, */15 or 0,30, not '61'"),
        ("0 25 * * *", "the hour must be"),
        ("0 2 32 * *", "the day-of-month must be"),
        ("0 2 * FEBR *", "the month must be"),
        ("0 2 * * 8", "the day-of-week must be"),
        ("0 2 * * FRI-SUN", "the day-of-week must be"),
        ("*/0 * * * *", "the minute must be"),
        ("0 0 1--100000000 * *", "the day-of-month must be"),
        (f"{'9' * 450} * * * *", "the minute must be"),
        ("0 2 * *", "must have the five fields minute, hour, day-of-month, month, day-of-week"),
        ("0 0 2 * * *", "For seconds, use `every`"),
        ("", "has 0"),
        ("@reboot", "must be one of @yearly"),
        ("0 0 31 2 *", "names a day that never comes"),
        ("0 0 31 4,6 *", "names a day that never comes"),
        (f"{','.join(['1-5'] * 400)} * * * *", "at most 500 characters"),
    ],
)
def test_a_refused_line_names_its_field(line: str, message: str) -> None:
    began = time.perf_counter()
    where, said = refusal(cron=[line])
    assert (where, time.perf_counter() - began < 1) == ("cron.0", True)
    assert message in said


@pytest.mark.parametrize(
    ("fields", "where", "message"),
    [
        ({}, "", "give exactly one"),
        ({"cron": ["@daily"], "every": "1h"}, "", "give exactly one"),
        ({"cron": ["@daily"], "offset": "1h"}, "", "`offset` belongs to `every`"),
        ({"every": "1h", "offset": "1h"}, "", "must be shorter"),
        ({"every": "0.5s"}, "every", "must be at least 1s"),
        ({"every": "soon"}, "every", "must be a duration of at most 10 years such as 90s"),
        ({"every": "99999d"}, "every", "at most 10 years"),
        ({"cron": ["@daily"], "jitter": "2d"}, "jitter", "must be at most 1d"),
        ({"cron": ["@daily"], "time_zone": "Europe/Belrin"}, "time_zone", "mean Europe/Berlin?"),
        ({"cron": ["@daily"], "time_zone": "../etc"}, "time_zone", "must be a time zone of the"),
        ({"cron": ["@daily"], "time_zone": "Europe"}, "time_zone", "must be a time zone of the"),
        ({"cron": ["@daily"], "start": "0001-01-01T00:00Z"}, "start", "1970 to 2999"),
        (
            {"cron": ["@daily"], "start": "2027-01-01T00:00Z", "end": "2026-01-01T00:00Z"},
            "",
            "`end` must not be before `start`",
        ),
        ({"cron": ["@daily"], "start": 5}, "start", "must be a time, such as 2026-11-30"),
        ({"cron": ["@daily"], "end": "1e3"}, "end", "must be a time, such as 2026-11-30"),
        ({"cron": ["@daily"], "except_days": ["0"]}, "except_days.0", "must be a day, such as"),
        ({"cron": ["@daily"] * 21}, "cron", "at most 20"),
        ({"cron": ["@daily"], "max_fires": 0}, "max_fires", "greater than or equal to 1"),
    ],
)
def test_a_refusal_says_what_to_do(fields: dict[str, Any], where: str, message: str) -> None:
    found, said = refusal(**fields)
    assert found == where
    assert message in said


def test_one_line_needs_no_list() -> None:
    assert Timing.model_validate({"cron": " @Daily "}).cron == ("@daily",)


def test_a_time_without_an_offset_is_in_the_zone_of_the_schedule() -> None:
    timing = Timing.model_validate(
        {"time_zone": "Europe/Berlin", "cron": "@daily", "start": "2026-12-01T00:00"}
    )
    assert timing.start == datetime(2026, 11, 30, 23, tzinfo=UTC)


def test_a_timing_survives_json() -> None:
    timing = Timing.model_validate(
        {
            "every": 5_400,
            "offset": "90.5s",
            "time_zone": "Asia/Kolkata",
            "start": "2026-12-01T00:00",
            "except_days": ["2026-12-25"],
        }
    )
    written = timing.model_dump(mode="json")
    assert (written["every"], written["offset"]) == ("1h30m", "1m30.5s")
    assert Timing.model_validate(written) == timing


@given(st.timedeltas(min_value=timedelta(), max_value=durations.LONGEST))
def test_a_written_duration_means_the_same(duration: timedelta) -> None:
    found = durations.seconds(durations.written(duration))
    assert found == pytest.approx(duration.total_seconds(), abs=1e-6)


PART = st.one_of(
    st.just("*"),
    st.lists(
        st.one_of(
            st.integers(0, 31).map(str),
            st.tuples(st.integers(0, 12), st.integers(1, 31)).map(lambda two: "{}-{}".format(*two)),
            st.tuples(st.sampled_from(["*", "3", "1-20", "L"]), st.integers(1, 40)).map(
                lambda two: "{}/{}".format(*two)
            ),
            st.sampled_from(["L", "LW", "MON", "mon-fri", "5L", "2#3", "JAN", "feb-apr"]),
        ),
        min_size=1,
        max_size=4,
    ).map(",".join),
)


@given(st.lists(PART, min_size=5, max_size=5).map(" ".join))
def test_a_line_is_refused_or_has_fires_and_words(line: str) -> None:
    try:
        found = cron.checked(line)
    except ValueError:
        return
    assert next(CronSim(line, datetime(2026, 1, 1)))  # noqa: DTZ001 - a wall-clock time
    assert in_words(Timing(cron=(found,)))


@given(st.text(alphabet="0123456789*,-/#LWAMONJ ²ß", max_size=40))
def test_any_text_is_a_line_or_a_refusal(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert cron.checked(text)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"cron": "0 2 * * *", "time_zone": "Europe/Berlin"},
            "at 02:00 every day, Europe/Berlin time",
        ),
        ({"cron": "@daily"}, "at 00:00 every day, UTC"),
        ({"cron": "@hourly"}, "at the start of every hour, UTC"),
        ({"cron": "*/15 * * * *"}, "every 15 minutes, UTC"),
        ({"cron": "* * * * *"}, "every minute, UTC"),
        ({"cron": "0 */6 * * *"}, "at minute 0 past every sixth hour, UTC"),
        ({"cron": "30 9 * * MON-FRI"}, "at 09:30 on Monday through Friday, UTC"),
        ({"cron": "0 9 21 * *"}, "at 09:00 on the 21st day of every month, UTC"),
        (
            {"cron": "0 9 11,12,22 * *"},
            "at 09:00 on the 11th, the 12th, and the 22nd day of the month, UTC",
        ),
        ({"cron": "0 0 L * *"}, "at 00:00 on the last day of every month, UTC"),
        (
            {"cron": "@daily", "start": "2026-12-01"},
            "at 00:00 every day, UTC, from 2026-12-01 00:00",
        ),
        (
            {"cron": ["0 2 * * *", "0 14 * * 6"]},
            "at 02:00 every day; and at 14:00 on Saturday, UTC",
        ),
        ({"every": "90m"}, "every 1 hour 30 minutes"),
        ({"every": "1h", "offset": "15m"}, "every hour with an offset of 15 minutes"),
        (
            {"every": "2d", "start": "2026-12-01T06:00", "time_zone": "Asia/Kolkata"},
            "every 2 days, counted from 2026-12-01 06:00 Asia/Kolkata time",
        ),
        (
            {
                "cron": "@daily",
                "end": "2026-12-31T12:00",
                "max_fires": 10,
                "except_days": ["2026-12-25", "2026-12-26"],
                "jitter": "5m",
            },
            "at 00:00 every day, UTC, until 2026-12-31 12:00, 10 times, "  # noqa: ISC004
            "but not on 2026-12-25 and 2026-12-26, up to 5 minutes later",
        ),
    ],
)
def test_words(fields: dict[str, Any], words: str) -> None:
    assert in_words(Timing.model_validate(fields)) == words
