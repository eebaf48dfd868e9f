"""What a timing means, in a sentence: "at 02:00 every day, Europe/Berlin time"."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from cronsim.explain import Expression

from jobs import durations
from jobs.schedules import cron
from jobs.schedules.timing import Timing

_ORDINAL = re.compile(r"\b(\d*(?<!1)[123])th\b")
_SUFFIXES = {"1": "st", "2": "nd", "3": "rd"}
_MINUTES = re.compile(r"^\*/(\d+) \* \* \* \*$")
_HOUR = 60
_MOST_DAYS = 3


def in_words(timing: Timing) -> str:
    """The whole timing. What has its default is left out."""
    if timing.every is not None:
        when = _interval(timing.every, timing)
    else:
        lines = dict.fromkeys(line_in_words(line) for line in timing.cron)
        when = f"{'; and '.join(lines)}, {_zone(timing)}"
    return ", ".join([when, *_limits(timing)])


def line_in_words(line: str) -> str:
    """A cron line without its zone: "at 02:00 on Monday through Friday"."""
    parts = cron.fields(line)
    step = _MINUTES.match(" ".join(parts))
    if step and 1 < int(step[1]) < _HOUR and _HOUR % int(step[1]) == 0:
        return f"every {int(step[1])} minutes"
    text = Expression(parts).explain().replace("day of month", "day of the month")
    text = _ORDINAL.sub(lambda hit: hit[1] + _SUFFIXES[hit[1][-1]], text)
    return text[0].lower() + text[1:]


def _interval(every: timedelta, timing: Timing) -> str:
    length = durations.in_words(every)
    text = f"every {length[2:] if length.startswith('1 ') and length.count(' ') == 1 else length}"
    if timing.start is not None:
        return f"{text}, counted from {_moment(timing.start + timing.offset, timing)}"
    if timing.offset:
        text += f" with an offset of {durations.in_words(timing.offset)}"
    return text


def _limits(timing: Timing) -> list[str]:
    limits = []
    if timing.start is not None and timing.every is None:
        limits.append(f"from {_moment(timing.start, timing)}")
    if timing.end is not None:
        limits.append(f"until {_moment(timing.end, timing)}")
    if timing.max_fires is not None:
        limits.append("once" if timing.max_fires == 1 else f"{timing.max_fires} times")
    if timing.except_days:
        limits.append(f"but not on {_days(timing)}")
    if timing.jitter:
        limits.append(f"up to {durations.in_words(timing.jitter)} later")
    return limits


def _days(timing: Timing) -> str:
    days = [day.isoformat() for day in sorted(set(timing.except_days))]
    more = len(days) - _MOST_DAYS
    shown = days if more <= 0 else [*days[:_MOST_DAYS], f"{more} more day{'s' * (more > 1)}"]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _moment(moment: datetime, timing: Timing) -> str:
    local = moment.astimezone(timing.zone)
    shown = local.strftime("%Y-%m-%d %H:%M:%S").removesuffix(":00")
    return f"{shown} {_zone(timing)}" if timing.every is not None else shown


def _zone(timing: Timing) -> str:
    return "UTC" if timing.time_zone == "UTC" else f"{timing.time_zone} time"
