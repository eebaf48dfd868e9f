"""Moments and days as people write them, in ISO 8601; a bare number is neither.

pydantic reads a number, and a text that holds one, as seconds since 1970: ``since=5`` would be a
moment in 1970.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, TypeVar

from pydantic import AwareDatetime, BeforeValidator
from pydantic_core import PydanticCustomError

_Given = TypeVar("_Given")


def _is_number(value: object) -> bool:
    if isinstance(value, bool | int | float):
        return True
    try:
        float(str(value))
    except ValueError:
        return False
    return True


def _moment(value: _Given) -> _Given:
    if _is_number(value):
        raise PydanticCustomError("datetime_number", "must be a time, such as 2026-11-30T06:00:00Z")
    return value


def _day(value: _Given) -> _Given:
    if _is_number(value):
        raise PydanticCustomError("date_number", "must be a day, such as 2026-11-30")
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(_moment)]
"""A moment with its offset from UTC: ``2026-11-30T06:00:00Z``."""

LocalMoment = Annotated[datetime, BeforeValidator(_moment)]
"""A moment with or without an offset; without one it is in a zone that stands beside it."""

Day = Annotated[date, BeforeValidator(_day)]
"""A day of the calendar: ``2026-11-30``."""
