"""Moments and days as people write them, in ISO 8601; a bare number is neither.

pydantic reads a number, and a text that holds one, as seconds since 1970: ``since=5`` would be a
moment in 1970.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated

from pydantic import AwareDatetime, BeforeValidator
from pydantic_core import PydanticCustomError


def _no_number(code: str, rule: str) -> BeforeValidator:
    def check(value: object) -> object:
        if _is_number(value):
            raise PydanticCustomError(code, rule)
        return value

    return BeforeValidator(check)


def _is_number(value: object) -> bool:
    if isinstance(value, bool | int | float):
        return True
    try:
        float(str(value))
    except ValueError:
        return False
    return True


_TIME = _no_number("datetime_number", "must be a time, such as 2026-11-30T06:00:00Z")

Moment = Annotated[AwareDatetime, _TIME]
"""A moment with its offset from UTC: ``2026-11-30T06:00:00Z``."""

LocalMoment = Annotated[datetime, _TIME]
"""A moment with or without an offset; without one it is in a zone that stands beside it."""

Day = Annotated[date, _no_number("date_number", "must be a day, such as 2026-11-30")]
"""A day of the calendar: ``2026-11-30``."""
