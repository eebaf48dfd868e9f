"""Arrow's dates, timestamps and durations as text, for every year and without a table of zones."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable

import pyarrow as pa
import pyarrow.compute as pc

_OUT_OF_RANGE = "<"
"""How Arrow's text for a year that it does not write begins."""
_DAY = 24 * 60 * 60
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_ERA_DAYS, _ERA_YEARS = 146_097, 400
"""The Gregorian calendar repeats after this many days, or years."""


def dates(values: pa.Array) -> pa.Array:
    if pa.types.is_date64(values.type):
        return mapped(
            values.cast(pa.int64()).to_pylist(), lambda count: _day(count // (_DAY * 1000))
        )
    return _with_far_years(as_strings(values), values.cast(pa.int32()), _day)


def timestamps(values: pa.Array) -> pa.Array:
    """In UTC if there is a zone, whichever it is: an instant needs no table of zones."""
    unit, zone = values.type.unit, values.type.tz
    counts = values.cast(pa.int64())
    written = as_strings(counts.cast(pa.timestamp(unit)))
    written = _with_far_years(written, counts, lambda count: _instant(count, unit))
    return written if zone is None else pc.binary_join_element_wise(written, "Z", "")


def _with_far_years(written: pa.Array, counts: pa.Array, write: Callable[[int], str]) -> pa.Array:
    """Arrow's texts, with our own for years that Arrow does not write."""
    far = pc.starts_with(written, _OUT_OF_RANGE)
    if not pc.any(far).as_py():
        return written
    rows = zip(written.to_pylist(), counts.to_pylist(), far.to_pylist(), strict=True)
    return pa.array([write(count) if is_far else text for text, count, is_far in rows])


def _day(days: int) -> str:
    eras, rest = divmod(days, _ERA_DAYS)
    day = dt.date(1970, 1, 1) + dt.timedelta(days=rest)
    year = day.year + eras * _ERA_YEARS
    return f"{'-' if year < 0 else ''}{abs(year):04d}-{day:%m-%d}"


def _instant(count: int, unit: str) -> str:
    seconds, fraction = divmod(count, _PER_SECOND[unit])
    days, second = divmod(seconds, _DAY)
    clock = f"{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}"
    return f"{_day(days)} {clock}{_fraction(fraction, unit)}"


def _fraction(count: int, unit: str) -> str:
    width = len(str(_PER_SECOND[unit])) - 1
    return f".{count:0{width}d}" if width else ""


def durations(values: pa.Array) -> pa.Array:
    unit = values.type.unit
    return mapped(values.cast(pa.int64()).to_pylist(), lambda count: _duration(count, unit))


def _duration(count: int, unit: str) -> str:
    """ISO 8601, only in seconds: days have no fixed length there."""
    seconds, fraction = divmod(abs(count), _PER_SECOND[unit])
    return f"{'-' if count < 0 else ''}PT{seconds}{_fraction(fraction, unit)}S"


def as_strings(values: pa.Array) -> pa.Array:
    return values.cast(pa.string())


def mapped(values: Iterable[object], write: Callable[..., str]) -> pa.Array:
    return pa.array([None if value is None else write(value) for value in values], pa.string())
