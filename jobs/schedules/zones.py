"""Time zones: their names, and which instants a wall-clock time means in one.

A wall-clock time exists once, or in a *gap* not at all (clocks went forward over it), or in a
*fold* twice (clocks went back over it). Wall-clock times are naive datetimes here, instants UTC.
"""

from __future__ import annotations

import difflib
import zoneinfo
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from functools import cache
from typing import Literal
from zoneinfo import ZoneInfo

_SECOND = timedelta(seconds=1)
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Reading:
    """The instants of a wall-clock time: equal unless it exists twice.

    In a gap both are the end of the gap, the first instant after the time that does not exist.
    """

    kind: Literal["once", "gap", "fold"]
    first: datetime
    second: datetime
    day_exists: bool = True  # false where a zone left out the whole calendar day


def zone(name: str) -> ZoneInfo:
    """A zone of the IANA database. Raises ``ValueError`` with what must be given."""
    if name not in _names():
        near = difflib.get_close_matches(name[:60], _names(), n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(
            f"must be a time zone of the IANA database such as Europe/Berlin or UTC, "
            f"not {name[:60]!r}{hint}"
        )
    return ZoneInfo(name)


def read(wall: datetime, zone: ZoneInfo) -> Reading:
    """Which instants a wall-clock time means."""
    before = _offset(wall.replace(tzinfo=zone, fold=0))
    after = _offset(wall.replace(tzinfo=zone, fold=1))
    if before < after:
        return _gap(wall, zone, before=before, after=after)
    first, second = _instant(wall - before), _instant(wall - after)
    return Reading("once" if first == second else "fold", first, second)


def wall_time(instant: datetime, zone: ZoneInfo) -> datetime:
    """What a clock on the wall shows, as a naive datetime with its ``fold``."""
    return instant.astimezone(zone).replace(tzinfo=None)


def _gap(wall: datetime, zone: ZoneInfo, *, before: timedelta, after: timedelta) -> Reading:
    """The clocks went forward somewhere between the two ways to read the time: find when."""
    early, late = _instant(wall - after), _instant(wall - before)
    while late - early > _SECOND:
        middle = early + (late - early) // (2 * _SECOND) * _SECOND
        if _offset(middle.astimezone(zone)) == before:
            early = middle
        else:
            late = middle
    midnight = datetime.combine(wall.date(), time())
    last_shown, next_shown = _naive(late + before), _naive(late + after)
    missing = last_shown <= midnight and next_shown >= midnight + _DAY
    return Reading("gap", late, late, day_exists=not missing)


def _offset(local: datetime) -> timedelta:
    return local.utcoffset() or timedelta()


def _instant(wall: datetime) -> datetime:
    return wall.replace(tzinfo=UTC, fold=0)


def _naive(instant: datetime) -> datetime:
    return instant.replace(tzinfo=None)


@cache
def _names() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())
