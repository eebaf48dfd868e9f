"""Cron lines: checked when a schedule is made, and the wall-clock times that they name.

The library ``cronsim`` parses a line and finds its next time, here without a zone: what the
changes of clocks do to a time is decided in ``calendar``. A line has the five fields of Debian's
cron, with ``L``, ``LW`` and ``MON#2``, or is a name such as ``@daily``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import date, datetime, time, timedelta

from cronsim import CronSim, CronSimError

NAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
FIELDS = {
    "minute": "0 to 59, such as 5, */15 or 0,30",
    "hour": "0 to 23, such as 2, 9-17 or */6",
    "day-of-month": "1 to 31, L for the last day or LW for the last weekday",
    "month": "1 to 12 or JAN to DEC, such as 3, 1-6 or JAN,JUL",
    "day-of-week": "0 to 7 or SUN to SAT (0 and 7 are Sunday), such as MON-FRI, MON#1 or 5L",
}
"""What each field of a line may hold, in their order."""

MOST_CHARACTERS = 500
"""A line that lists every minute, hour and day one by one has about 350."""
EXAMPLE = "'0 2 * * *' (at 02:00 every day)"

_BEFORE = timedelta(seconds=1)
_LAST_SECOND = time(23, 59, 59)
_SOME_TIME = datetime.combine(date(2000, 1, 1), time())
_HOURS = frozenset(range(24))


def checked(line: str) -> str:
    """The line with single spaces. Raises ``ValueError`` that names the field that is wrong."""
    if len(line) > MOST_CHARACTERS:
        raise ValueError(f"a cron line must have at most {MOST_CHARACTERS} characters")
    line = " ".join(line.split())
    if line.startswith("@"):
        if line.lower() not in NAMES:
            raise ValueError(f"must be one of {', '.join(NAMES)}, not {line[:40]!r}")
        return line.lower()
    parts = line.split()
    if len(parts) != len(FIELDS):
        raise ValueError(
            f"a cron line must have the five fields {', '.join(FIELDS)}, such as {EXAMPLE}; "
            f"{line[:60]!r} has {len(parts)}. For seconds, use `every`"
        )
    for place, (field, values) in enumerate(FIELDS.items()):
        _check_field(parts[place], place=place, field=field, values=values)
    _check_comes(line)
    return line


def fields(line: str) -> list[str]:
    """The five fields, also of a line such as ``@daily``."""
    return NAMES.get(line, line).upper().split()


def names_every_hour(line: str) -> bool:
    """Whether the line is hourly or finer: it fires whatever the hour is."""
    return _simulation(line, _SOME_TIME).hours == _HOURS


def walls(line: str, *, since: datetime, except_days: Collection[date]) -> Iterator[datetime]:
    """The wall-clock times that the line names, from ``since`` on, in order.

    Ends with the last year of the calendar, or where no time comes for 50 years.
    """
    simulation = _simulation(line, since - _BEFORE)
    try:
        for wall in simulation:
            if wall.date() in except_days:
                simulation.dt = datetime.combine(wall.date(), _LAST_SECOND)
            else:
                yield wall
    except OverflowError:
        return


def _simulation(line: str, since: datetime) -> CronSim:
    return CronSim(" ".join(fields(line)), since)


def _check_field(part: str, *, place: int, field: str, values: str) -> None:
    alone = ["*"] * len(FIELDS)
    alone[place] = part
    try:
        CronSim(" ".join(alone), _SOME_TIME)
    except (CronSimError, ValueError):
        raise ValueError(f"the {field} must be {values}, not {part[:40]!r}") from None


def _check_comes(line: str) -> None:
    try:
        comes = next(walls(line, since=_SOME_TIME, except_days=()), None) is not None
    except CronSimError:
        comes = False
    if not comes:
        raise ValueError(
            f"{line!r} names a day that never comes: change its day-of-month or its month"
        )
