"""What the values of a Parquet column become as ids, texts and labels, by their Arrow type.

``KINDS`` says it for every type, the first that fits; ``jobs.corpora.conversions`` shows examples
of each. Nothing passes through Python's dates, which know neither the year 10000 nor every zone.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

Entry = TypeVar("Entry")
Texts = Callable[[pa.Array], pa.Array]
Label = str | None
Span = tuple[int, int]


class Role(Enum):
    """What a type may be beside an id."""

    TEXT = "a text, a label, settings"
    SCALAR = "a label"
    LIST = "several labels, where its values may be labels"
    OTHER = "nothing else"


@dataclass(frozen=True)
class Kind:
    """Types whose values are spelled alike; without ``texts`` a column of ids is refused."""

    name: str
    holds: Callable[[pa.DataType], bool]
    texts: Texts | None
    role: Role = Role.OTHER


def is_text(kind: pa.DataType) -> bool:
    """Whether the column may hold texts."""
    return of(kind).role is Role.TEXT


def is_label(kind: pa.DataType) -> bool:
    """Whether each value may be a label, or a text to be written."""
    return of(kind).role in (Role.TEXT, Role.SCALAR)


def is_list(kind: pa.DataType) -> bool:
    """Whether each value is a list of any of Arrow's kinds."""
    return of(kind).role is Role.LIST


def is_labels(kind: pa.DataType) -> bool:
    """Whether each value may be several labels."""
    return is_label(kind) or (is_list(kind) and is_label(stored_type(kind).value_type))


def unspelled(kind: pa.DataType) -> pa.DataType | None:
    """The type, of this one and those within it, for whose values there is no text."""
    kind = stored_type(kind)
    if of(kind).texts is None:
        return kind
    within = (unspelled(kind.field(place).type) for place in range(kind.num_fields))
    return next((each for each in within if each is not None), None)


def texts(values: pa.Array) -> pa.Array:
    """Ids as strings; null stays null. The type must be one that is spelled."""
    values = stored(values)
    made = of(values.type).texts
    assert made is not None, "columns of such types are refused before"
    return made(values)


def labels(values: pa.Array) -> Sequence[Label | list[Label]]:
    """Labels as strings, or lists of them; bytes that are no UTF-8 as half surrogate pairs."""
    values = stored(values)
    if is_list(values.type):
        return _grouped(values, lambda entries: _labels(stored(entries)))
    return _labels(values)


def _labels(values: pa.Array) -> list[Label]:
    if is_text(values.type):
        raw = values.cast(pa.large_binary()).to_pylist()
        return [None if each is None else each.decode("utf-8", "surrogateescape") for each in raw]
    found: list[Label] = texts(values).to_pylist()
    if pa.types.is_floating(values.type):  # what is no number is a missing one, as pandas means it
        found = [None if each == "nan" else each for each in found]
    return found


def stored_type(kind: pa.DataType) -> pa.DataType:
    """The type itself, without encodings and extensions that say nothing here."""
    while True:
        if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
            kind = kind.value_type
        elif isinstance(kind, pa.BaseExtensionType) and not _is_uuid(kind) and not _is_bool8(kind):
            kind = kind.storage_type
        else:
            return kind


def stored(values: pa.Array) -> pa.Array:
    """The values in their ``stored_type``."""
    while True:
        kind = values.type
        if pa.types.is_dictionary(kind):
            values = values.dictionary_decode()
        elif pa.types.is_run_end_encoded(kind):
            values = pc.run_end_decode(values)
        elif kind != stored_type(kind):
            values = values.storage
        else:
            return values


def of(kind: pa.DataType) -> Kind:
    """The kind that the type is of."""
    kind = stored_type(kind)
    return next(each for each in KINDS if each.holds(kind))


def _is_uuid(kind: pa.DataType) -> bool:
    return isinstance(kind, pa.UuidType)


def _is_bool8(kind: pa.DataType) -> bool:
    return isinstance(kind, pa.Bool8Type)


def _is_string(kind: pa.DataType) -> bool:
    checks = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(check(kind) for check in checks)


def _is_binary(kind: pa.DataType) -> bool:
    checks = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
    return any(check(kind) for check in checks)


def _is_list(kind: pa.DataType) -> bool:
    is_ = pa.types
    checks = (
        is_.is_list,
        is_.is_large_list,
        is_.is_fixed_size_list,
        is_.is_list_view,
        is_.is_large_list_view,
    )
    return any(check(kind) for check in checks)


def _cast(values: pa.Array) -> pa.Array:
    return values.cast(pa.string())


def _strings(values: pa.Array) -> pa.Array:
    """As they are; bytes that are no UTF-8 are replaced."""
    strings = values.cast(pa.string())
    try:
        strings.validate(full=True)
    except pa.ArrowInvalid:
        raw = strings.cast(pa.binary()).to_pylist()
        return _made(raw, lambda each: each.decode(errors="replace"))
    return strings


def _floats(values: pa.Array) -> pa.Array:
    """The shortest digits that mean the number in its own width, and always a point: ``1.0``."""
    if pa.types.is_float32(values.type):
        return _made(_cast(values).to_pylist(), lambda digits: repr(float(digits)))
    return _made(values.to_pylist(), repr)


def _decimals(values: pa.Array) -> pa.Array:
    return _made(values.to_pylist(), lambda number: format(number, "f"))


def _truths(values: pa.Array) -> pa.Array:
    return _cast(values.storage.cast(pa.bool_()))


def _uuids(values: pa.Array) -> pa.Array:
    return _made(values.storage.to_pylist(), lambda raw: str(uuid.UUID(bytes=raw)))


_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def _bytes(values: pa.Array) -> pa.Array:
    return _made(values.to_pylist(), _of_bytes)


def _of_bytes(raw: bytes) -> str:
    """The text that the bytes are, which many writers store so; any other bytes in hex digits."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return f"0x{raw.hex()}"
    return f"0x{raw.hex()}" if _CONTROL.search(text) else text


def _digits(values: pa.Array) -> pa.Array:
    return _made(values.to_pylist(), bytes.hex)


_OUT_OF_RANGE = "<"
"""How Arrow begins what it says of a year that it does not write."""
_DAY = 24 * 60 * 60
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_ERA_DAYS, _ERA_YEARS = 146_097, 400
"""Days after which the Gregorian calendar repeats itself."""


def _dates(values: pa.Array) -> pa.Array:
    if pa.types.is_date64(values.type):
        return _made(
            values.cast(pa.int64()).to_pylist(), lambda count: _day(count // (_DAY * 1000))
        )
    return _ranged(_cast(values), values.cast(pa.int32()), _day)


def _times(values: pa.Array) -> pa.Array:
    """In UTC where there is a zone, whichever it is: an instant needs no table of zones."""
    unit, zone = values.type.unit, values.type.tz
    numbers = values.cast(pa.int64())
    made = _cast(numbers.cast(pa.timestamp(unit)))
    made = _ranged(made, numbers, lambda count: _instant(count, unit))
    return made if zone is None else pc.binary_join_element_wise(made, "Z", "")


def _ranged(made: pa.Array, numbers: pa.Array, write: Callable[[int], str]) -> pa.Array:
    """What Arrow wrote, and where it does not write such years, what we do."""
    far = pc.starts_with(made, _OUT_OF_RANGE)
    if not pc.any(far).as_py():
        return made
    pairs = zip(made.to_pylist(), numbers.to_pylist(), far.to_pylist(), strict=True)
    return pa.array([write(count) if is_far else text for text, count, is_far in pairs])


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


def _durations(values: pa.Array) -> pa.Array:
    unit = values.type.unit
    return _made(values.cast(pa.int64()).to_pylist(), lambda count: _duration(count, unit))


def _duration(count: int, unit: str) -> str:
    """ISO 8601, in seconds alone: days are of no fixed length there."""
    seconds, fraction = divmod(abs(count), _PER_SECOND[unit])
    return f"{'-' if count < 0 else ''}PT{seconds}{_fraction(fraction, unit)}S"


def _nested(values: pa.Array) -> pa.Array:
    valid = values.is_valid().to_pylist()
    return pa.array(
        [text if is_valid else None for text, is_valid in zip(_json(values), valid, strict=True)],
        pa.string(),
    )


def _json(values: pa.Array) -> list[str]:
    """Each value as JSON."""
    values = stored(values)
    kind = values.type
    if pa.types.is_struct(kind):
        return _objects(values)
    if pa.types.is_map(kind):
        return _maps(values)
    if is_list(kind):
        return _arrays(_grouped(values, _json))
    if pa.types.is_floating(kind):
        return [json.dumps(each and float(each)) for each in texts(values).to_pylist()]
    found = texts(values).to_pylist()
    if is_label(kind) and not is_text(kind):  # a number, or true or false
        return ["null" if each is None else each for each in found]
    return [json.dumps(each, ensure_ascii=False) for each in found]


def _objects(values: pa.Array) -> list[str]:
    names = [json.dumps(field.name, ensure_ascii=False) for field in values.type]
    columns = [_json(column) for column in values.flatten()]
    rows: Iterable[tuple[str, ...]] = zip(*columns, strict=True) if columns else [()] * len(values)
    return [
        "{" + ", ".join(f"{name}: {each}" for name, each in zip(names, row, strict=True)) + "}"
        if valid
        else "null"
        for row, valid in zip(rows, values.is_valid().to_pylist(), strict=True)
    ]


def _maps(values: pa.Array) -> list[str]:
    """Arrays of pairs: keys need be neither strings nor different."""
    spans = _spans(values)
    keys, items = (_json(_within(column, spans)) for column in (values.keys, values.items))
    pairs = [_array(pair) for pair in zip(keys, items, strict=True)]
    return _arrays(_cut(pairs, spans))


def _arrays(lists: Iterable[list[str] | None]) -> list[str]:
    return ["null" if each is None else _array(each) for each in lists]


def _array(entries: Iterable[str]) -> str:
    return "[" + ", ".join(entries) + "]"


def _grouped(
    values: pa.Array, convert: Callable[[pa.Array], list[Entry]]
) -> list[list[Entry] | None]:
    """What the entries of all lists are converted to, list by list."""
    spans = _spans(values)
    return _cut(convert(_within(values.values, spans)), spans)


def _spans(values: pa.Array) -> list[Span | None]:
    """Where the entries of each list begin and end among those of all; ``None`` is a null."""
    kind = values.type
    if pa.types.is_fixed_size_list(kind):
        size = kind.list_size
        begins = [(values.offset + place) * size for place in range(len(values))]
        ends = [begin + size for begin in begins]
    elif pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        begins = values.offsets.to_pylist()
        sizes = values.sizes.to_pylist()
        ends = [begin + size for begin, size in zip(begins, sizes, strict=True)]
    else:
        begins, ends = values.offsets[:-1].to_pylist(), values.offsets[1:].to_pylist()
    valid = values.is_valid().to_pylist()
    spans = zip(begins, ends, strict=True)
    return [span if is_valid else None for span, is_valid in zip(spans, valid, strict=True)]


def _bounds(spans: Iterable[Span | None]) -> Span:
    found = [span for span in spans if span is not None]
    return min((begin for begin, _ in found), default=0), max((end for _, end in found), default=0)


def _within(entries: pa.Array, spans: list[Span | None]) -> pa.Array:
    """No more of the entries than the spans need: a slice of lists has those of all."""
    begin, end = _bounds(spans)
    return entries[begin:end]


def _cut(entries: list[Entry], spans: list[Span | None]) -> list[list[Entry] | None]:
    first, _ = _bounds(spans)
    return [None if span is None else entries[span[0] - first : span[1] - first] for span in spans]


def _made(found: Iterable[object], write: Callable[..., str]) -> pa.Array:
    return pa.array([None if each is None else write(each) for each in found], pa.string())


KINDS = (
    Kind("string", _is_string, _strings, Role.TEXT),
    Kind("whole number", pa.types.is_integer, _cast, Role.SCALAR),
    Kind("floating point", pa.types.is_floating, _floats, Role.SCALAR),
    Kind("decimal", pa.types.is_decimal, _decimals, Role.SCALAR),
    Kind("boolean", pa.types.is_boolean, _cast, Role.SCALAR),
    Kind("boolean of 8 bits", _is_bool8, _truths, Role.SCALAR),
    Kind("null", pa.types.is_null, _cast, Role.SCALAR),
    Kind("uuid", _is_uuid, _uuids),
    Kind("binary", _is_binary, _bytes),
    Kind("binary of a fixed size", pa.types.is_fixed_size_binary, _digits),
    Kind("date", pa.types.is_date, _dates),
    Kind("time", pa.types.is_time, _cast),
    Kind("timestamp", pa.types.is_timestamp, _times),
    Kind("duration", pa.types.is_duration, _durations),
    Kind("list", _is_list, _nested, Role.LIST),
    Kind("struct", pa.types.is_struct, _nested),
    Kind("map", pa.types.is_map, _nested),
    Kind("union, interval, and whatever Arrow adds", lambda _: True, None),
)
"""Every type, after ``stored_type``, is of the first that holds it."""
