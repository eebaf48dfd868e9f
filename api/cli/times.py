"""Durations and times as they are written on the command line."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION = re.compile(r"(?:\d{1,9}(?:\.\d{1,6})?[smhd])+")
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhd])")

DURATION = "90s, 30m, 2h or 1d12h"
MOMENT = "2026-11-30 or 2026-11-30T06:00"


def seconds(text: str, *, now: datetime | None = None) -> float:
    """Seconds until a deadline: a number of them, a duration, or a time to come.

    Raises ``ValueError`` with what must be given.
    """
    found = _seconds(text)
    if found is None and (moment := _moment(text)):
        found = (moment - (now or datetime.now(UTC))).total_seconds()
    if found is None:
        raise ValueError(
            f"must be a duration such as {DURATION}, or a time such as {MOMENT}, not {text[:60]!r}"
        )
    if found <= 0:
        raise ValueError(f"must lie ahead, and {text[:60]!r} does not")
    return found


def since(text: str, *, now: datetime | None = None) -> datetime:
    """A time in the past: itself, or how long ago it was. Raises ``ValueError``."""
    ago = _seconds(text)
    try:
        found = (
            _moment(text) if ago is None else (now or datetime.now(UTC)) - timedelta(seconds=ago)
        )
    except OverflowError:
        found = None
    if found is None:
        raise ValueError(
            f"must be a time such as {MOMENT}, or how long ago, such as {DURATION}, "
            f"not {text[:60]!r}"
        )
    return found


def _seconds(text: str) -> float | None:
    text = text.strip().lower()
    if _DURATION.fullmatch(text):
        return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    try:
        found = float(text)
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def _moment(text: str) -> datetime | None:
    """A time of ISO 8601; without a zone it is of the machine's own."""
    try:
        return datetime.fromisoformat(text.strip()).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return None
