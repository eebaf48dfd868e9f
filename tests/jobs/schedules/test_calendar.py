"""Fire times over two years in seven zones, against an oracle that walks the minutes (P8)."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import islice, pairwise, takewhile
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.schedules.calendar import FireTime, fire_times
from jobs.schedules.timing import Timing
from tests.jobs.schedules.oracle import ZONES, Line, walk

EVERY_HOUR = frozenset(range(24))
LINES = {
    "at two": Line(frozenset({0}), frozenset({2})),
    "in every change": Line(frozenset({0, 15, 59}), frozenset({0, 1, 2, 3, 23})),
    "at midnight of some days": Line(
        frozenset({0}), frozenset({0}), month_days=frozenset({1, 30, 31}), week_days=frozenset({5})
    ),
    "every hour": Line(frozenset({30}), EVERY_HOUR),
}

lines = st.builds(
    Line,
    minutes=st.frozensets(st.integers(0, 59), min_size=1, max_size=4),
    hours=st.one_of(
        st.frozensets(st.integers(0, 23), min_size=1, max_size=5),
        st.frozensets(st.sampled_from([0, 1, 2, 3, 23]), min_size=1),
        st.just(EVERY_HOUR),
    ),
    month_days=st.one_of(st.just(frozenset()), st.frozensets(st.integers(1, 31), max_size=20)),
    week_days=st.one_of(st.just(frozenset()), st.frozensets(st.integers(0, 6), max_size=5)),
)
gaps = st.sampled_from(["shift", "skip"])
folds = st.sampled_from(["first", "second", "both"])


def timing_of(*cron: Line, zone: str, **fields: Any) -> Timing:
    return Timing.model_validate({"cron": [str(each) for each in cron], "time_zone": zone} | fields)


def between(timing: Timing, after: datetime, until: datetime) -> list[FireTime]:
    return list(takewhile(lambda fire: fire.due <= until, fire_times(timing, after=after)))


def differences(found: list[FireTime], expected: list[datetime]) -> list[str]:
    """A few of them: pytest takes minutes to compare long lists."""
    due = [fire.due for fire in found]
    other = [f"fires at {each}" for each in sorted(set(due) - set(expected))[:5]]
    other += [f"does not fire at {each}" for each in sorted(set(expected) - set(due))[:5]]
    return other or ([] if due == expected else ["fires in another order, or twice"])


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("name", LINES)
@pytest.mark.parametrize(("gap", "fold"), [("shift", "first"), ("skip", "both")])
@pytest.mark.slow
def test_two_years_are_those_of_the_oracle(zone: str, name: str, gap: str, fold: str) -> None:
    line, years = LINES[name], walk(zone)
    found = between(timing_of(line, zone=zone, gap=gap, fold=fold), years.begin, years.end)
    expected = years.fires(line, after=years.begin, until=years.end, gap=gap, fold=fold)
    assert differences(found, expected) == []


@settings(max_examples=150)
@given(
    zone=st.sampled_from(sorted(ZONES)),
    line=lines,
    other=lines,
    gap=gaps,
    fold=folds,
    near=st.integers(0, 3),
    minutes=st.integers(-3 * 1_440, 3 * 1_440),
    anywhere=st.integers(0, 700 * 1_440),
)
def test_any_lines_from_any_moment_are_those_of_the_oracle(
    *,
    zone: str,
    line: Line,
    other: Line,
    gap: str,
    fold: str,
    near: int,
    minutes: int,
    anywhere: int,
) -> None:
    years = walk(zone)
    changes = years.changes()
    after = years.begin + timedelta(minutes=anywhere)
    if changes and near < 3:
        after = changes[near % len(changes)] + timedelta(minutes=minutes)
    after = min(max(after, years.begin), years.end - timedelta(days=4))
    until = after + timedelta(days=4)
    timing = timing_of(line, other, zone=zone, gap=gap, fold=fold)
    expected = {
        due
        for each in (line, other)
        for due in years.fires(each, after=after, until=until, gap=gap, fold=fold)
    }
    assert differences(between(timing, after, until), sorted(expected)) == []


@given(
    zone=st.sampled_from(sorted(ZONES)),
    line=lines,
    gap=gaps,
    fold=folds,
    seconds=st.integers(0, 700 * 86_400),
)
def test_fires_asked_for_one_by_one_are_those_asked_for_at_once(
    *, zone: str, line: Line, gap: str, fold: str, seconds: int
) -> None:
    timing = timing_of(line, zone=zone, gap=gap, fold=fold)
    after = walk(zone).begin + timedelta(seconds=seconds)
    at_once = list(islice(fire_times(timing, after=after), 12))
    one_by_one = []
    last_local = None
    for _ in at_once:
        fire = next(fire_times(timing, after=after, last_local=last_local))
        one_by_one.append(fire)
        after, last_local = fire.due, fire.local
    assert one_by_one == at_once
    assert all(a.due < b.due for a, b in pairwise(at_once))
    assert all(fire.local.astimezone(UTC) == fire.due for fire in at_once)


@given(
    before=st.integers(-12, 14),
    after=st.integers(-12, 14),
    line=lines.filter(lambda line: line.hours != EVERY_HOUR),
    seconds=st.integers(0, 30 * 86_400),
)
def test_no_wall_clock_time_fires_again_when_the_data_of_the_zone_change(
    *, before: int, after: int, line: Line, seconds: int
) -> None:
    """The zone had one offset up to the last fire, and has another for the next."""
    begin = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    old, new = (timing_of(line, zone=f"Etc/GMT{-each:+d}") for each in (before, after))
    last = next(fire_times(old, after=begin))
    following = next(fire_times(new, after=last.due, last_local=last.local))
    assert following.due > last.due
    assert following.local.replace(tzinfo=None) > last.local.replace(tzinfo=None)


@given(
    every=st.integers(1, 3 * 86_400),
    offset=st.integers(0, 86_400),
    start=st.none() | st.integers(0, 86_400),
    zone=st.sampled_from(sorted(ZONES)),
    seconds=st.integers(-5 * 86_400, 5 * 86_400),
)
def test_an_interval_is_of_real_time(
    *, every: int, offset: int, start: int | None, zone: str, seconds: int
) -> None:
    day = datetime(2026, 10, 25, tzinfo=UTC)
    begin = None if start is None else day + timedelta(seconds=start)
    timing = Timing.model_validate(
        {"every": every, "offset": offset % every, "time_zone": zone, "start": begin}
    )
    after = day + timedelta(seconds=seconds)
    due = [fire.due for fire in islice(fire_times(timing, after=after), 20)]
    origin = (begin or datetime(1970, 1, 1, tzinfo=UTC)) + timing.offset
    assert {(each - origin) % timedelta(seconds=every) for each in due} == {timedelta()}
    assert {b - a for a, b in pairwise(due)} == {timedelta(seconds=every)}
    assert due[0] > after
    assert due[0] - timedelta(seconds=every) <= max(after, origin - timedelta(microseconds=1))


@pytest.mark.parametrize("when", [{"cron": "*/30 * * * *"}, {"every": "30m"}])
def test_days_left_out_are_days_of_the_zone(when: dict[str, str]) -> None:
    timing = Timing.model_validate(
        when | {"time_zone": "Asia/Kolkata", "except_days": ["2026-12-25", "2026-12-26"]}
    )
    after = datetime(2026, 12, 24, 18, tzinfo=UTC)
    fires = list(islice(fire_times(timing, after=after), 2))
    assert [fire.local.isoformat() for fire in fires] == [
        "2026-12-27T00:00:00+05:30",
        "2026-12-27T00:30:00+05:30",
    ]


def test_a_thousand_days_left_out_cost_no_time() -> None:
    days = [date(2027, 1, 1) + timedelta(days=each) for each in range(1_000)]
    for when in ({"cron": "* * * * *"}, {"every": "1s"}):
        timing = Timing.model_validate(when | {"except_days": days})
        fire = next(fire_times(timing, after=datetime(2026, 12, 31, 23, 59, 59, 999_999, UTC)))
        assert fire.due == datetime(2029, 9, 27, tzinfo=UTC)


def test_start_and_end_are_themselves_fire_times() -> None:
    noon = datetime(2026, 12, 1, 12, tzinfo=UTC)
    timing = Timing(cron=("0 * * * *",), start=noon, end=noon + timedelta(hours=2))
    due = [fire.due for fire in fire_times(timing, after=noon - timedelta(days=9))]
    assert due == [noon, noon + timedelta(hours=1), noon + timedelta(hours=2)]


def test_a_line_ends_with_the_calendar() -> None:
    late = datetime(9999, 12, 31, 23, 50, tzinfo=UTC)
    for when in ({"cron": "*/5 * * * *"}, {"every": "5m"}):
        assert len(list(fire_times(Timing.model_validate(when), after=late))) == 1
