"""Durations and times as they are written on the command line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from jobs import durations

MOMENT = "2026-11-30 or 2026-11-30T06:00"


def seconds(text: str, *, now: datetime | None = None) -> float:
    """Seconds until a deadline: a number of them, a duration, or a time to come.

    Raises ``ValueError`` with what must be given.
    """
    found = durations.seconds(text)
    if found is None and (moment := _moment(text)):
        found = (moment - (now or datetime.now(UTC))).total_seconds()
    if found is None:
        raise ValueError(
            f"must be a duration such as {durations.EXAMPLES}, or a time such as {MOMENT}, "
            f"not {text[:60]!r}"
        )
    if found <= 0:
        raise ValueError(f"must lie ahead, and {text[:60]!r} does not")
    return found


def since(text: str, *, now: datetime | None = None) -> datetime:
    """A time in the past: itself, or how long ago it was. Raises ``ValueError``."""
    ago = durations.seconds(text)
    try:
        found = (
            _moment(text) if ago is None else (now or datetime.now(UTC)) - timedelta(seconds=ago)
        )
    except OverflowError:
        found = None
    if found is None:
        raise ValueError(
            f"must be a time such as {MOMENT}, or how long ago, such as {durations.EXAMPLES}, "
            f"not {text[:60]!r}"
        )
    return found


def _moment(text: str) -> datetime | None:
    """A time of ISO 8601; without a zone it is of the machine's own."""
    try:
        return datetime.fromisoformat(text.strip()).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return None
