"""Durations as people write them: ``90s``, ``1h30m``, or a number of seconds."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from jobs import names

EXAMPLES = "90s, 30m, 2h or 1d12h"
LONGEST = timedelta(days=3_660)

_UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_DURATION = re.compile(names.DURATION)
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_MOST_CHARACTERS = 60


def seconds(text: str) -> float | None:
    """The seconds of a duration, or of a plain number; ``None`` for any other text."""
    text = text.strip().lower()
    if len(text) > _MOST_CHARACTERS:
        return None
    if _DURATION.fullmatch(text):
        return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    try:
        found = float(text)
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def written(duration: timedelta) -> str:
    """The shortest text that means this duration: ``1h30m``; ``0s`` for none."""
    rest = duration // timedelta(microseconds=1)
    text = ""
    for unit, size in _UNITS.items():
        count, rest = divmod(rest, size * 1_000_000)
        if unit == "s" and rest:
            text += f"{count}.{rest:06d}".rstrip("0") + "s"
        elif count:
            text += f"{count}{unit}"
    return text or "0s"


def in_words(duration: timedelta) -> str:
    """``1 hour 30 minutes``; the fraction of a second is left out."""
    rest = int(duration.total_seconds())
    parts = []
    for name, size in (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count} {name}{'s' if count > 1 else ''}")
    return " ".join(parts) or "less than a second"


def _read(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return value
    found = seconds(value) if isinstance(value, str) else float(value)
    if found is None or not 0 <= found <= LONGEST.total_seconds():
        raise ValueError(
            f"must be a duration of at most 10 years such as {EXAMPLES}, or a number of seconds, "
            f"not {str(value)[:_MOST_CHARACTERS]!r}"
        )
    return timedelta(seconds=found)


Duration = Annotated[
    timedelta,
    BeforeValidator(_read),
    PlainSerializer(written, return_type=str, when_used="json"),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": f"^{names.DURATION}$", "examples": ["1h30m"]},
                {"type": "number", "minimum": 0, "maximum": LONGEST.total_seconds()},
            ]
        }
    ),
]
"""A field that takes ``"1h30m"`` or seconds, and is written to JSON as the former."""
