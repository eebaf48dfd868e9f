"""The values of a Parquet column as ids, texts and labels, by their Arrow type.

The first entry of ``KINDS`` that fits a type decides; ``jobs.corpora.conversion_examples`` has
examples of each. No value passes through Python's dates, which support neither the year 10000 nor
every zone.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from jobs.corpora import arrow_times
from jobs.corpora.arrow_times import as_strings, mapped

Entry = TypeVar("Entry")
Texts = Callable[[pa.Array], pa.Array]
Label = str | None
Span = tuple[int, int]


class Role(Enum):
    """What a value of this type can be, apart from an id."""

    TEXT = "a text, a label, settings"
    SCALAR = "a label"
    LIST = "several labels, where its values may be labels"
    OTHER = "nothing else"


@dataclass(frozen=True)
class ValueKind:
    """Types whose values are written alike; without ``texts`` they cannot be ids."""

    name: str
    holds: Callable[[pa.DataType], bool]
    texts: Texts | None
    role: Role = Role.OTHER


def is_text(arrow_type: pa.DataType) -> bool:
    """Whether the values can be texts."""
    return kind_of(arrow_type).role is Role.TEXT


def is_label(arrow_type: pa.DataType) -> bool:
    """Whether each value can be a label, or a text to generate."""
    return kind_of(arrow_type).role in (Role.TEXT, Role.SCALAR)


def is_list(arrow_type: pa.DataType) -> bool:
    """Whether each value is a list of any of Arrow's list types."""
    return kind_of(arrow_type).role is Role.LIST


def is_labels(arrow_type: pa.DataType) -> bool:
    """Whether each value can be several labels."""
    return is_label(arrow_type) or (
        is_list(arrow_type) and is_label(stored_type(arrow_type).value_type)
    )


def type_without_text(arrow_type: pa.DataType) -> pa.DataType | None:
    """The first type, of this one and those within it, whose values cannot be written as text."""
    arrow_type = stored_type(arrow_type)
    if kind_of(arrow_type).texts is None:
        return arrow_type
    fields = (arrow_type.field(index) for index in range(arrow_type.num_fields))
    inner = (type_without_text(field.type) for field in fields)
    return next((found for found in inner if found is not None), None)


def texts(values: pa.Array) -> pa.Array:
    """Ids as strings; null stays null. The type must have texts."""
    values = stored(values)
    convert = kind_of(values.type).texts
    assert convert is not None, "columns of such types were refused before"
    return convert(values)


def labels(values: pa.Array) -> Sequence[Label | list[Label]]:
    """Labels as strings, or lists of them; bytes that are not UTF-8 become lone surrogates."""
    values = stored(values)
    if is_list(values.type):
        return _grouped(values, lambda entries: _labels(stored(entries)))
    return _labels(values)


def _labels(values: pa.Array) -> list[Label]:
    if is_text(values.type):
        raw = values.cast(pa.large_binary()).to_pylist()
        return [
            None if value is None else value.decode("utf-8", "surrogateescape") for value in raw
        ]
    names: list[Label] = texts(values).to_pylist()
    if pa.types.is_floating(values.type):  # NaN is a missing label, as in pandas
        names = [None if name == "nan" else name for name in names]
    return names


def stored_type(arrow_type: pa.DataType) -> pa.DataType:
    """The type without encodings and extensions that do not change how values are written."""
    while True:
        if pa.types.is_dictionary(arrow_type) or pa.types.is_run_end_encoded(arrow_type):
            arrow_type = arrow_type.value_type
        elif (
            isinstance(arrow_type, pa.BaseExtensionType)
            and not _is_uuid(arrow_type)
            and not _is_bool8(arrow_type)
        ):
            arrow_type = arrow_type.storage_type
        else:
            return arrow_type


def stored(values: pa.Array) -> pa.Array:
    """The values in their ``stored_type``."""
    while True:
        arrow_type = values.type
        if pa.types.is_dictionary(arrow_type):
            values = values.dictionary_decode()
        elif pa.types.is_run_end_encoded(arrow_type):
            values = pc.run_end_decode(values)
        elif arrow_type != stored_type(arrow_type):
            values = values.storage
        else:
            return values


def kind_of(arrow_type: pa.DataType) -> ValueKind:
    """The first kind that the type belongs to."""
    arrow_type = stored_type(arrow_type)
    return next(kind for kind in KINDS if kind.holds(arrow_type))


def _is_uuid(arrow_type: pa.DataType) -> bool:
    return isinstance(arrow_type, pa.UuidType)


def _is_bool8(arrow_type: pa.DataType) -> bool:
    return isinstance(arrow_type, pa.Bool8Type)


def _is_string(arrow_type: pa.DataType) -> bool:
    checks = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(check(arrow_type) for check in checks)


def _is_binary(arrow_type: pa.DataType) -> bool:
    checks = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
    return any(check(arrow_type) for check in checks)


def _is_list(arrow_type: pa.DataType) -> bool:
    is_ = pa.types
    checks = (
        is_.is_list,
        is_.is_large_list,
        is_.is_fixed_size_list,
        is_.is_list_view,
        is_.is_large_list_view,
    )
    return any(check(arrow_type) for check in checks)


def _strings(values: pa.Array) -> pa.Array:
    """Unchanged; bytes that are not UTF-8 are replaced."""
    strings = values.cast(pa.string())
    try:
        strings.validate(full=True)
    except pa.ArrowInvalid:
        raw = strings.cast(pa.binary()).to_pylist()
        return mapped(raw, lambda value: value.decode(errors="replace"))
    return strings


def _floats(values: pa.Array) -> pa.Array:
    """The shortest digits that round-trip in the number's own width, always with a point."""
    if pa.types.is_float32(values.type):
        return mapped(as_strings(values).to_pylist(), lambda digits: repr(float(digits)))
    return mapped(values.to_pylist(), repr)


def _decimals(values: pa.Array) -> pa.Array:
    return mapped(values.to_pylist(), lambda number: format(number, "f"))


def _booleans(values: pa.Array) -> pa.Array:
    return as_strings(values.storage.cast(pa.bool_()))


def _uuids(values: pa.Array) -> pa.Array:
    return mapped(values.storage.to_pylist(), lambda raw: str(uuid.UUID(bytes=raw)))


_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def _bytes(values: pa.Array) -> pa.Array:
    return mapped(values.to_pylist(), _text_or_hex)


def _text_or_hex(raw: bytes) -> str:
    """The bytes as text, which many writers store as binary; any other bytes in hex digits."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return f"0x{raw.hex()}"
    return f"0x{raw.hex()}" if _CONTROL.search(text) else text


def _digits(values: pa.Array) -> pa.Array:
    return mapped(values.to_pylist(), bytes.hex)


def _nested(values: pa.Array) -> pa.Array:
    valid = values.is_valid().to_pylist()
    return pa.array(
        [text if is_valid else None for text, is_valid in zip(_json(values), valid, strict=True)],
        pa.string(),
    )


def _json(values: pa.Array) -> list[str]:
    values = stored(values)
    arrow_type = values.type
    if pa.types.is_struct(arrow_type):
        return _objects(values)
    if pa.types.is_map(arrow_type):
        return _maps(values)
    if is_list(arrow_type):
        return _arrays(_grouped(values, _json))
    if pa.types.is_floating(arrow_type):
        return [json.dumps(text and float(text)) for text in texts(values).to_pylist()]
    strings = texts(values).to_pylist()
    if is_label(arrow_type) and not is_text(arrow_type):  # a number, or true or false
        return ["null" if text is None else text for text in strings]
    return [json.dumps(text, ensure_ascii=False) for text in strings]


def _objects(values: pa.Array) -> list[str]:
    names = [json.dumps(field.name, ensure_ascii=False) for field in values.type]
    columns = [_json(column) for column in values.flatten()]
    rows: Iterable[tuple[str, ...]] = zip(*columns, strict=True) if columns else [()] * len(values)
    return [
        "{" + ", ".join(f"{name}: {value}" for name, value in zip(names, row, strict=True)) + "}"
        if valid
        else "null"
        for row, valid in zip(rows, values.is_valid().to_pylist(), strict=True)
    ]


def _maps(values: pa.Array) -> list[str]:
    """Arrays of pairs: keys may be of any type, and may repeat."""
    spans = _spans(values)
    keys, items = (_json(_within(column, spans)) for column in (values.keys, values.items))
    pairs = [_array(pair) for pair in zip(keys, items, strict=True)]
    return _arrays(_cut(pairs, spans))


def _arrays(lists: Iterable[list[str] | None]) -> list[str]:
    return ["null" if entries is None else _array(entries) for entries in lists]


def _array(entries: Iterable[str]) -> str:
    return "[" + ", ".join(entries) + "]"


def _grouped(
    values: pa.Array, convert: Callable[[pa.Array], list[Entry]]
) -> list[list[Entry] | None]:
    """The converted entries, list by list."""
    spans = _spans(values)
    return _cut(convert(_within(values.values, spans)), spans)


def _spans(values: pa.Array) -> list[Span | None]:
    """Where each list's entries begin and end among all entries; ``None`` for a null list."""
    arrow_type = values.type
    if pa.types.is_fixed_size_list(arrow_type):
        size = arrow_type.list_size
        begins = [(values.offset + index) * size for index in range(len(values))]
        ends = [begin + size for begin in begins]
    elif pa.types.is_list_view(arrow_type) or pa.types.is_large_list_view(arrow_type):
        begins = values.offsets.to_pylist()
        sizes = values.sizes.to_pylist()
        ends = [begin + size for begin, size in zip(begins, sizes, strict=True)]
    else:
        begins, ends = values.offsets[:-1].to_pylist(), values.offsets[1:].to_pylist()
    valid = values.is_valid().to_pylist()
    spans = zip(begins, ends, strict=True)
    return [span if is_valid else None for span, is_valid in zip(spans, valid, strict=True)]


def _bounds(spans: Iterable[Span | None]) -> Span:
    valid = [span for span in spans if span is not None]
    return min((begin for begin, _ in valid), default=0), max((end for _, end in valid), default=0)


def _within(entries: pa.Array, spans: list[Span | None]) -> pa.Array:
    """Only the entries that the spans need: a slice of lists has those of the whole array."""
    begin, end = _bounds(spans)
    return entries[begin:end]


def _cut(entries: list[Entry], spans: list[Span | None]) -> list[list[Entry] | None]:
    first, _ = _bounds(spans)
    return [None if span is None else entries[span[0] - first : span[1] - first] for span in spans]


KINDS = (
    ValueKind("string", _is_string, _strings, Role.TEXT),
    ValueKind("whole number", pa.types.is_integer, as_strings, Role.SCALAR),
    ValueKind("floating point", pa.types.is_floating, _floats, Role.SCALAR),
    ValueKind("decimal", pa.types.is_decimal, _decimals, Role.SCALAR),
    ValueKind("boolean", pa.types.is_boolean, as_strings, Role.SCALAR),
    ValueKind("boolean of 8 bits", _is_bool8, _booleans, Role.SCALAR),
    ValueKind("null", pa.types.is_null, as_strings, Role.SCALAR),
    ValueKind("uuid", _is_uuid, _uuids),
    ValueKind("binary", _is_binary, _bytes),
    ValueKind("binary of a fixed size", pa.types.is_fixed_size_binary, _digits),
    ValueKind("date", pa.types.is_date, arrow_times.dates),
    ValueKind("time", pa.types.is_time, as_strings),
    ValueKind("timestamp", pa.types.is_timestamp, arrow_times.timestamps),
    ValueKind("duration", pa.types.is_duration, arrow_times.durations),
    ValueKind("list", _is_list, _nested, Role.LIST),
    ValueKind("struct", pa.types.is_struct, _nested),
    ValueKind("map", pa.types.is_map, _nested),
    ValueKind("union, interval, and whatever Arrow adds", lambda _: True, None),
)
"""Every type, after ``stored_type``, belongs to the first kind that holds it."""
