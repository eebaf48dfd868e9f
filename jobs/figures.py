"""Numbers and times as the pages show them; pure."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

NONE = "-"
"""Stands where there is no value."""

_SPANS = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
_BYTES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def count(value: int | None) -> str:
    """``1,234``."""
    return NONE if value is None else f"{value:,}"


def span(seconds: float | timedelta | None) -> str:
    """The two largest units: ``2 h 5 min``; ``0 s`` for less than a second."""
    if isinstance(seconds, timedelta):
        seconds = seconds.total_seconds()
    if seconds is None or not math.isfinite(seconds):
        return NONE
    rest = max(0, int(seconds))
    for place, (unit, size) in enumerate(_SPANS):
        many, rest_of_it = divmod(rest, size)
        if many:
            smaller = _SPANS[place + 1] if place + 1 < len(_SPANS) else None
            more = rest_of_it // smaller[1] if smaller else 0
            return f"{many:,} {unit}" + (f" {more} {smaller[0]}" if smaller and more else "")
    return "0 s"


def age(at: datetime | None, *, now: datetime) -> str:
    """How long ago that was."""
    return NONE if at is None else span(now - at)


def moment(at: datetime | None) -> str:
    """``2026-11-30 17:41:46 UTC``."""
    return NONE if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def rate(per_second: float | None, *, unit: str) -> str:
    """``1,234 rows/s``; slow ones by the minute."""
    if per_second is None or not math.isfinite(per_second):
        return NONE
    if 0 < per_second < 1:
        return f"{per_second * 60:.1f} {unit}/min"
    return f"{per_second:,.0f} {unit}/s" if per_second >= 10 else f"{per_second:.1f} {unit}/s"  # noqa: PLR2004


def size(number: int | None) -> str:
    """``64.0 GiB``."""
    if number is None:
        return NONE
    value, place = float(number), 0
    while value >= 1024 and place < len(_BYTES) - 1:  # noqa: PLR2004
        value, place = value / 1024, place + 1
    return f"{value:.1f} {_BYTES[place]}" if place else f"{number} B"


def percent(done: float, total: float | None) -> int | None:
    """Whole percents, 100 only when all is done; ``None``: the total is not known."""
    if total is None or not total > 0 or not math.isfinite(done):
        return None
    return 100 if done >= total else min(99, math.floor(100 * max(0, done) / total))


def value(number: float | None) -> str:
    """Four digits of a loss or a metric."""
    return NONE if number is None else f"{number:.4g}"
