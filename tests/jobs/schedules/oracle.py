"""When a cron line fires, by another way: walk two years minute by minute and look at the clock.

Nothing of ``jobs.schedules`` is used: a line is sets of numbers here, and a zone the wall-clock
time of each minute of real time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from itertools import product
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY = 1_440
QUARTER = 15
MARGIN = 3 * DAY
MINUTE = timedelta(minutes=1)

ZONES = {
    "Europe/Berlin": 2026,
    "America/New_York": 2026,
    "Australia/Lord_Howe": 2026,
    "Africa/Cairo": 2026,
    "Asia/Kolkata": 2026,
    "Pacific/Apia": 2011,  # it left out 2011-12-30
    "UTC": 2026,
}
"""Each with the first of the two years that are walked."""


@dataclass(frozen=True)
class Line:
    """A cron line. An empty set of days is a star; with days of both kinds either will do."""

    minutes: frozenset[int]
    hours: frozenset[int]
    month_days: frozenset[int] = frozenset()
    week_days: frozenset[int] = frozenset()

    def __str__(self) -> str:
        return " ".join(
            [
                _listed(self.minutes, 60),
                _listed(self.hours, 24),
                _listed(self.month_days, None),
                "*",
                _listed(self.week_days, None),
            ]
        )

    def has_day(self, day: date) -> bool:
        by_month, by_week = day.day in self.month_days, day.isoweekday() % 7 in self.week_days
        return by_month or by_week or not (self.month_days or self.week_days)

    def times_of_day(self) -> list[int]:
        return [60 * hour + minute for hour, minute in product(self.hours, self.minutes)]


@dataclass(frozen=True)
class Walk:
    """Two years of a zone: the wall-clock time of each minute, both in minutes since 1970."""

    first: int
    walls: NDArray[np.int64]

    @property
    def begin(self) -> datetime:
        return moment(self.first + MARGIN)

    @property
    def end(self) -> datetime:
        return moment(self.first + len(self.walls) - MARGIN)

    def changes(self) -> list[datetime]:
        """The first minutes with another offset than the one before."""
        places = np.flatnonzero(np.diff(self.walls) != 1) + 1
        return [moment(self.first + int(place)) for place in places]

    def fires(
        self, line: Line, *, after: datetime, until: datetime, gap: str, fold: str
    ) -> list[datetime]:
        low = minutes(after) - self.first - MARGIN
        high = minutes(until) - self.first + MARGIN
        low, high = max(low, 0), min(high, len(self.walls))
        window = self.walls[low:high]
        found = self._every_hour(line, window) if len(line.hours) == 24 else set()
        if not found and len(line.hours) < 24:
            found = self._by_day(line, window, gap=gap, fold=fold)
        instants = (moment(self.first + low + place) for place in found)
        return sorted(each for each in instants if after < each <= until)

    @staticmethod
    def _every_hour(line: Line, window: NDArray[np.int64]) -> set[int]:
        places = np.flatnonzero(np.isin(window % 60, list(line.minutes)))
        return {int(place) for place in places if line.has_day(_date(int(window[place])))}

    @staticmethod
    def _by_day(line: Line, window: NDArray[np.int64], *, gap: str, fold: str) -> set[int]:
        times = line.times_of_day()
        shown: dict[int, list[int]] = {}
        for place in np.flatnonzero(np.isin(window % DAY, times)):
            shown.setdefault(int(window[place]), []).append(int(place))
        days = range(int(window.min()) // DAY, int(window.max()) // DAY + 1)
        existing = {int(each) for each in np.unique(window // DAY)}
        found: set[int] = set()
        for day in days:
            if not line.has_day(_date(day * DAY)) or day not in existing:
                continue
            for wall in (day * DAY + time for time in times):
                places = shown.get(wall, [])
                if places:
                    found |= set({"first": places[:1], "second": places[-1:]}.get(fold, places))
                elif gap == "shift" and window.min() < wall < window.max():
                    found.add(int(np.argmax(window > wall)))
        return found


@cache
def walk(zone: str) -> Walk:
    """Looks at the clock every quarter of an hour, and where it changed at every minute."""
    info, year = ZoneInfo(zone), ZONES[zone]
    first = minutes(datetime(year, 1, 1, tzinfo=UTC)) - MARGIN
    last = minutes(datetime(year + 2, 1, 1, tzinfo=UTC)) + MARGIN
    offsets = np.empty(last - first, dtype=np.int64)
    for minute in range(first, last, QUARTER):
        place = minute - first
        here, there = _offset(minute, info), _offset(minute + QUARTER, info)
        offsets[place : place + QUARTER] = here
        if here != there:
            every = range(minute, minute + QUARTER)
            offsets[place : place + QUARTER] = [_offset(each, info) for each in every]
    return Walk(first, np.arange(first, last) + offsets)


def minutes(instant: datetime) -> int:
    return (instant - EPOCH) // MINUTE


def moment(minute: int) -> datetime:
    return EPOCH + minute * MINUTE


def _offset(minute: int, info: ZoneInfo) -> int:
    offset = moment(minute).astimezone(info).utcoffset()
    assert offset is not None
    return offset // MINUTE


def _date(wall: int) -> date:
    return moment(wall).date()


def _listed(numbers: frozenset[int], full: int | None) -> str:
    if not numbers or len(numbers) == full:
        return "*"
    return ",".join(str(each) for each in sorted(numbers))
