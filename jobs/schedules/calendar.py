"""The instants at which a schedule is due, and when each of its fires is let go.

Cron lines name wall-clock times. A line that names hours means each of its times once a day, and
``gap`` and ``fold`` decide where clocks change. A line that names every hour (``0 * * * *``) means
each instant at which a clock shows one of its times: it fires in every real hour. ``every`` counts
real time and knows no clocks. The instant is the key of a fire, so no two fires share one. P8 of
docs/promises.md rests on this; docs/schedules.md explains it.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from operator import attrgetter
from zoneinfo import ZoneInfo

from jobs.schedules import cron, zones
from jobs.schedules.timing import Timing
from jobs.schedules.zones import Reading

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class FireTime:
    """One instant at which a schedule is due."""

    due: datetime  # UTC; the key of the fire
    local: datetime  # the same instant in the zone of the schedule


def fire_times(
    timing: Timing, *, after: datetime, last_local: datetime | None = None
) -> Iterator[FireTime]:
    """The fires with ``due > after``, in order, between ``start`` and ``end``.

    ``last_local`` is ``local`` of the last fire by this timing, with its offset or ``fold``: if the
    data of the zone change and its wall-clock time comes again, it is no fire again. How many fires
    are left (``max_fires``) is not decided here.
    """
    if timing.start is not None:
        after = max(after, timing.start - _MICROSECOND)
    last = None if last_local is None else _wall_with_fold(last_local, timing.zone)
    try:
        for fire in _by_lines(timing, after, last) if timing.cron else _by_interval(timing, after):
            if timing.end is not None and fire.due > timing.end:
                return
            yield fire
    except OverflowError:  # the last year of the calendar
        return


def jittered(
    fire: FireTime, *, schedule_id: str, timing: Timing, next_due: datetime | None
) -> datetime:
    """When a fire is let go: at ``due`` or later by less than ``jitter``, before the next is due.

    The same for a fire in every process, and spread evenly over schedules.
    """
    span = timing.jitter if next_due is None else min(timing.jitter, next_due - fire.due)
    if span < _MICROSECOND:
        return fire.due
    seed = f"{schedule_id} {fire.due.isoformat()}".encode()
    number = int.from_bytes(hashlib.sha256(seed).digest()[:8], "big")
    return fire.due + number % (span // _MICROSECOND) * _MICROSECOND


def _by_interval(timing: Timing, after: datetime) -> Iterator[FireTime]:
    assert timing.every is not None
    origin = (timing.start or _EPOCH) + timing.offset
    while True:
        due = origin + ((after - origin) // timing.every + 1) * timing.every
        local = due.astimezone(timing.zone)
        if local.date() in timing.except_days:
            after = _end_of_day(local) - _MICROSECOND
            continue
        yield FireTime(due, local)
        after = due


def _end_of_day(local: datetime) -> datetime:
    """The first instant after this one of another day."""
    assert isinstance(local.tzinfo, ZoneInfo)
    midnight = datetime.combine(local.date() + _DAY, time())
    reading = zones.read(midnight, local.tzinfo)
    instant = local.astimezone(UTC)
    return reading.first if reading.first > instant else max(reading.second, instant + _MICROSECOND)


def _by_lines(timing: Timing, after: datetime, last: datetime | None) -> Iterator[FireTime]:
    lines = [_Line(line, timing=timing, after=after, last=last).fires() for line in timing.cron]
    previous = None
    for fire in heapq.merge(*lines, key=attrgetter("due")):
        if fire.due != previous:
            yield fire
        previous = fire.due


class _Line:
    """The fires of one cron line."""

    def __init__(
        self, line: str, *, timing: Timing, after: datetime, last: datetime | None
    ) -> None:
        self.line = line
        self.timing = timing
        self.zone = timing.zone
        self.after = after
        self.last = last
        self.hourly = cron.names_every_hour(line)
        self.any_hourly = any(cron.names_every_hour(each) for each in timing.cron)

    def fires(self) -> Iterator[FireTime]:
        """In order: a time that exists for the second time waits for those that come before it."""
        waiting: list[datetime] = []
        except_days = frozenset(self.timing.except_days)
        for wall in cron.walls(self.line, since=self._first_wall(), except_days=except_days):
            reading = zones.read(wall, self.zone)
            for instant in self._instants(reading):
                if instant > self.after and not self._has_fired(wall, instant, reading):
                    heapq.heappush(waiting, instant)
            while waiting and waiting[0] <= reading.first:
                yield self._fire(heapq.heappop(waiting))
        yield from (self._fire(instant) for instant in sorted(waiting))

    def _first_wall(self) -> datetime:
        """The earliest wall-clock time that may still come after ``after``."""
        wall = zones.wall_time(self.after, self.zone)
        reading = zones.read(wall, self.zone)
        if reading.kind == "fold" and wall.fold == 0:
            wall -= reading.second - reading.first
        return wall

    def _instants(self, reading: Reading) -> tuple[datetime, ...]:
        gap, fold = self.timing.gap, self.timing.fold
        match reading.kind:
            case "once":
                return (reading.first,)
            case "gap":
                shifts = gap == "shift" and not self.hourly and reading.day_exists
                return (reading.first,) if shifts else ()
            case "fold" if self.hourly or fold == "both":
                return (reading.first, reading.second)
        return (reading.first if fold == "first" else reading.second,)

    def _has_fired(self, wall: datetime, instant: datetime, reading: Reading) -> bool:
        """Whether the last fire was at this wall-clock time, or a later one.

        This is so only where the data of the zone have changed. Of a line that names every hour,
        and where both times of a fold fire, a wall-clock time does come twice.
        """
        if self.last is None or self.hourly:
            return False
        again = reading.kind == "fold" and instant == reading.second and self.last.fold == 0
        if again and (self.timing.fold == "both" or self.any_hourly):
            return False
        return wall <= self.last.replace(fold=0)

    def _fire(self, instant: datetime) -> FireTime:
        return FireTime(instant, instant.astimezone(self.zone))


def _wall_with_fold(local: datetime, zone: ZoneInfo) -> datetime:
    """The wall-clock time, naive; an offset tells which of two it is where ``fold`` is lost."""
    wall = local.replace(tzinfo=None)
    if local.tzinfo is None or wall.fold:
        return wall
    reading = zones.read(wall, zone)
    second = reading.kind == "fold" and local.astimezone(UTC) == reading.second
    return wall.replace(fold=int(second))
