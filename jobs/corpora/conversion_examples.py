"""The table of conversions: a value of each type as id, text, label, labels and message content.

The table consists of examples. ``tests/jobs/corpora/test_conversion_examples.py`` reads each from
a file of its format and compares; docs/values.md shows them. ``values`` converts JSON and CSV,
``arrow_values`` Parquet.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.row_codes import RowCode


class Refused(StrEnum):
    """Codes of a corpus that is refused before its first row."""

    COLUMN_WRONG_TYPE = "column_wrong_type"


COLUMN = Refused.COLUMN_WRONG_TYPE
MISSING = RowCode.MISSING_TARGET
WRONG = RowCode.WRONG_TYPE
BAD_CHAT = RowCode.BAD_CHAT

Converted = str | RowCode | Refused | None
"""The text, ``None`` for a null id, or the code of the refused row or corpus."""
Labels = tuple[str, ...] | RowCode | Refused


@dataclass(frozen=True)
class Conversion:
    """One value and its conversions."""

    given: str  # as in a JSONL file or a CSV cell; of Arrow, in words
    id: Converted
    text: Converted
    label: Converted
    labels: Labels


@dataclass(frozen=True)
class JsonConversion(Conversion):
    """A value of JSON; ``chat`` is the content of a message."""

    chat: Converted = BAD_CHAT


@dataclass(frozen=True)
class ArrowConversion(Conversion):
    """A value in an Arrow array of length one."""

    array: Callable[[], pa.Array]
    in_parquet: bool = True  # whether a Parquet file keeps the type


_LONG = "12345678901234567890123"

JSON = (
    JsonConversion('"a"', "a", "a", "a", ("a",), chat="a"),
    JsonConversion('" a "', " a ", " a ", " a ", ("a",), chat=" a "),
    JsonConversion('""', "", RowCode.EMPTY_TEXT, MISSING, (), chat=""),
    JsonConversion('"True"', "True", "True", "true", ("true",), chat="True"),
    JsonConversion('"a|b"', "a|b", "a|b", "a|b", ("a", "b"), chat="a|b"),
    JsonConversion(
        '"[\\"a\\", \\"b\\"]"',
        '["a", "b"]',
        '["a", "b"]',
        '["a", "b"]',
        ("a", "b"),
        chat='["a", "b"]',
    ),
    JsonConversion("7", "7", WRONG, "7", ("7",)),
    JsonConversion("-0", "0", WRONG, "0", ("0",)),
    JsonConversion(_LONG, _LONG, WRONG, _LONG, (_LONG,)),
    JsonConversion("1.0", "1.0", WRONG, "1.0", ("1.0",)),
    JsonConversion("1.50", "1.5", WRONG, "1.5", ("1.5",)),
    JsonConversion("1e16", "1e+16", WRONG, "1e+16", ("1e+16",)),
    JsonConversion("NaN", "nan", WRONG, MISSING, MISSING),
    JsonConversion("Infinity", "inf", WRONG, "inf", ("inf",)),
    JsonConversion("true", "true", WRONG, "true", ("true",)),
    JsonConversion("null", None, RowCode.MISSING_TEXT, MISSING, MISSING),
    JsonConversion("", None, RowCode.MISSING_TEXT, MISSING, MISSING),
    JsonConversion("[]", "[]", WRONG, WRONG, ()),
    JsonConversion('["a", "b", "a"]', '["a", "b", "a"]', WRONG, WRONG, ("a", "b")),
    JsonConversion("[1, 1.0, true]", "[1, 1.0, true]", WRONG, WRONG, ("1", "1.0", "true")),
    JsonConversion('["a", null]', '["a", null]', WRONG, WRONG, WRONG),
    JsonConversion('[["a"]]', '[["a"]]', WRONG, WRONG, WRONG),
    JsonConversion(
        '[{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]',
        '[{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]',
        WRONG,
        WRONG,
        WRONG,
        chat="ab",
    ),
    JsonConversion('[{"type": "image"}]', '[{"type": "image"}]', WRONG, WRONG, WRONG),
    JsonConversion('{"a": 1}', '{"a": 1}', WRONG, WRONG, WRONG),
)
"""Values of a JSONL row; a missing value is an empty string here."""

CSV = (
    Conversion("a", "a", "a", "a", ("a",)),
    Conversion(" a ", " a ", " a ", " a ", ("a",)),
    Conversion("", "", RowCode.EMPTY_TEXT, MISSING, ()),
    Conversion("7", "7", "7", "7", ("7",)),
    Conversion("1.0", "1.0", "1.0", "1.0", ("1.0",)),
    Conversion("1.50", "1.50", "1.50", "1.50", ("1.50",)),
    Conversion("True", "True", "True", "true", ("true",)),
    Conversion("FALSE", "FALSE", "FALSE", "false", ("false",)),
    Conversion("null", "null", "null", "null", ("null",)),
    Conversion("a|b", "a|b", "a|b", "a|b", ("a", "b")),
    Conversion("a||b", "a||b", "a||b", "a||b", WRONG),
    Conversion('["a", "b"]', '["a", "b"]', '["a", "b"]', '["a", "b"]', ("a", "b")),
    Conversion('["a, b|c"]', '["a, b|c"]', '["a, b|c"]', '["a, b|c"]', ("a, b|c",)),
    Conversion("[]", "[]", "[]", "[]", ()),
    Conversion("[1, true]", "[1, true]", "[1, true]", "[1, true]", ("1", "true")),
    Conversion("['a', 'b']", "['a', 'b']", "['a', 'b']", "['a', 'b']", WRONG),
    Conversion("[a]", "[a]", "[a]", "[a]", ("[a]",)),
)
"""Cells of CSV and TSV, which are always texts."""


def _arrow(  # noqa: PLR0917 - a line of a table
    given: str,
    arrow_type: pa.DataType,
    value: Any,
    id_: Converted,
    label: Converted = COLUMN,
    labels: Labels | None = None,
    **others: Any,
) -> ArrowConversion:
    """A value of a type other than text; ``labels`` defaults to the one label."""
    if labels is None:
        assert label is not None, "a label is never null"
        labels = label if isinstance(label, RowCode | Refused) else (label,)
    text = others.pop("text", COLUMN)
    return ArrowConversion(
        given, id_, text, label, labels, array=lambda: _array(value, arrow_type), **others
    )


def _text(given: str, arrow_type: pa.DataType, **others: Any) -> ArrowConversion:
    return _arrow(given, arrow_type, "a", "a", "a", text="a", **others)


def _array(value: Any, arrow_type: pa.DataType) -> pa.Array:
    if isinstance(arrow_type, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(arrow_type, _array(value, arrow_type.storage_type))
    if pa.types.is_run_end_encoded(arrow_type):
        return pc.run_end_encode(pa.array([value], arrow_type.value_type))
    if pa.types.is_dictionary(arrow_type):
        return pa.array([value], arrow_type.value_type).dictionary_encode().cast(arrow_type)
    if pa.types.is_union(arrow_type):
        children = [pa.array([value], arrow_type.field(0).type)]
        return pa.UnionArray.from_sparse(pa.array([0], pa.int8()), children)
    if pa.types.is_temporal(arrow_type) and isinstance(value, int):
        width = pa.int32() if arrow_type.bit_width == 32 else pa.int64()  # noqa: PLR2004
        return pa.array([value], width).cast(arrow_type)
    return pa.array([value], arrow_type)


class _Point(pa.ExtensionType):  # type: ignore[misc]  # pyarrow's is untyped
    """An extension type that no code here handles."""

    def __init__(self) -> None:
        super().__init__(pa.list_(pa.int32(), 2), "nightshift.example")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type: pa.DataType, serialized: bytes) -> _Point:
        del storage_type, serialized
        return cls()


_WHOLE = [
    pa.int8(),
    pa.int16(),
    pa.int32(),
    pa.int64(),
    pa.uint8(),
    pa.uint16(),
    pa.uint32(),
    pa.uint64(),
]
_DECIMALS = [pa.decimal32(9, 7), pa.decimal64(18, 7), pa.decimal128(38, 7), pa.decimal256(76, 7)]
_LISTS = [
    pa.list_(pa.string()),
    pa.large_list(pa.string()),
    pa.list_(pa.string(), 2),
    pa.list_view(pa.string()),
    pa.large_list_view(pa.string()),
]
_NOON = dt.datetime(2024, 2, 29, 12, 30)  # noqa: DTZ001 - for a column without a zone
_SECONDS = 1_709_209_800  # the same instant, if that is UTC
_UNKNOWN = "W. Europe Standard Time"
_BERLIN = "Europe/Berlin"

ARROW = (
    _text("string", pa.string()),
    _text("large_string", pa.large_string()),
    _text("string_view", pa.string_view()),
    _text("dictionary of strings", pa.dictionary(pa.int32(), pa.string())),
    _text("run_end_encoded strings", pa.run_end_encoded(pa.int32(), pa.string()), in_parquet=False),
    _text("extension json", pa.json_()),
    _text("extension opaque of strings", pa.opaque(pa.string(), "a", "b")),
    *(_arrow(f"{kind}: 7", kind, 7, "7", "7") for kind in _WHOLE),
    _arrow(
        "dictionary of int64: 7",
        pa.dictionary(pa.int8(), pa.int64()),
        7,
        "7",
        "7",
        in_parquet=False,
    ),
    _arrow("halffloat: 0.5", pa.float16(), 0.5, "0.5", "0.5"),
    _arrow("float: 0.1", pa.float32(), 0.1, "0.1", "0.1"),
    _arrow("float: 1", pa.float32(), 1, "1.0", "1.0"),
    _arrow("double: 1", pa.float64(), 1, "1.0", "1.0"),
    _arrow("double: 10 to the 16th", pa.float64(), 1e16, "1e+16", "1e+16"),
    _arrow("double: not a number", pa.float64(), float("nan"), "nan", MISSING),
    _arrow("double: infinite", pa.float64(), float("inf"), "inf", "inf"),
    *(
        _arrow(f"{kind}: 0.0000001", kind, Decimal("1e-7"), "0.0000001", "0.0000001")
        for kind in _DECIMALS
    ),
    _arrow("bool: true", pa.bool_(), True, "true", "true"),  # noqa: FBT003
    _arrow("extension bool8: true", pa.bool8(), 1, "true", "true"),
    _arrow("null", pa.null(), None, None, MISSING),
    _arrow("null in any other column", pa.int64(), None, None, MISSING),
    _arrow("extension uuid", pa.uuid(), bytes(range(16)), "00010203-0405-0607-0809-0a0b0c0d0e0f"),
    _arrow("binary: text in UTF-8", pa.binary(), "ä".encode(), "ä"),
    _arrow("binary: other bytes", pa.binary(), b"\xff\x00", "0xff00"),
    _arrow("binary: control characters", pa.binary(), b"\x00a", "0x0061"),
    _arrow("large_binary", pa.large_binary(), b"a", "a"),
    _arrow("binary_view", pa.binary_view(), b"a", "a"),
    _arrow("fixed_size_binary of 2", pa.binary(2), b"a\x00", "6100"),
    _arrow("date32", pa.date32(), 19_782, "2024-02-29"),
    _arrow("date32: the year 10183", pa.date32(), 3_000_000, "10183-09-21"),
    _arrow("date32: the last", pa.date32(), 2**31 - 1, "5881580-07-11"),
    _arrow("date64", pa.date64(), 19_782 * 86_400_000, "2024-02-29", in_parquet=False),
    _arrow("time32 in s", pa.time32("s"), 45_000, "12:30:00", in_parquet=False),
    _arrow("time32 in ms", pa.time32("ms"), 45_000_001, "12:30:00.001"),
    _arrow("time64 in us", pa.time64("us"), 45_000_000_001, "12:30:00.000001"),
    _arrow("time64 in ns", pa.time64("ns"), 45_000_000_000_001, "12:30:00.000000001"),
    _arrow("timestamp in s", pa.timestamp("s"), _NOON, "2024-02-29 12:30:00", in_parquet=False),
    _arrow("timestamp in ms", pa.timestamp("ms"), _NOON, "2024-02-29 12:30:00.000"),
    _arrow("timestamp in us", pa.timestamp("us"), _NOON, "2024-02-29 12:30:00.000000"),
    _arrow("timestamp in ns", pa.timestamp("ns"), _NOON, "2024-02-29 12:30:00.000000000"),
    _arrow(
        "timestamp: the last in ms", pa.timestamp("ms"), 2**63 - 1, "292278994-08-17 07:12:55.807"
    ),
    _arrow(
        "timestamp in ms, zone Europe/Berlin",
        pa.timestamp("ms", _BERLIN),
        _SECONDS * 1000,
        "2024-02-29 12:30:00.000Z",
    ),
    _arrow(
        f"timestamp in ms, the unknown zone {_UNKNOWN}",
        pa.timestamp("ms", _UNKNOWN),
        _SECONDS * 1000,
        "2024-02-29 12:30:00.000Z",
    ),
    _arrow("duration in s", pa.duration("s"), 90_061, "PT90061S"),
    _arrow("duration in us", pa.duration("us"), -1, "-PT0.000001S"),
    _arrow(
        "interval",
        pa.month_day_nano_interval(),
        pa.MonthDayNano([1, 2, 3]),
        COLUMN,
        in_parquet=False,
    ),
    *(_arrow(str(kind), kind, ["a", "b"], '["a", "b"]', COLUMN, ("a", "b")) for kind in _LISTS),
    _arrow("list of int64", pa.list_(pa.int64()), [1, 2], "[1, 2]", COLUMN, ("1", "2")),
    _arrow("list of double", pa.list_(pa.float64()), [1, None], "[1.0, null]", COLUMN, WRONG),
    _arrow("list of bool", pa.list_(pa.bool_()), [True], "[true]", COLUMN, ("true",)),
    _arrow("list of binary", pa.list_(pa.binary()), [b"a"], '["a"]'),
    _arrow("list of date32", pa.list_(pa.date32()), [dt.date(2024, 2, 29)], '["2024-02-29"]'),
    _arrow(
        "list of decimal",
        pa.list_(pa.decimal128(9, 2)),
        [Decimal("1.50")],
        "[1.50]",
        COLUMN,
        ("1.50",),
    ),
    _arrow("list of lists", pa.list_(pa.list_(pa.string())), [["a"], None], '[["a"], null]'),
    _arrow(
        "struct",
        pa.struct({"a": pa.int64(), "b": pa.string(), "c": pa.bool_()}),
        {"a": 1, "b": 'ä "', "c": None},
        '{"a": 1, "b": "ä \\"", "c": null}',
    ),
    _arrow(
        "map",
        pa.map_(pa.string(), pa.int64()),
        [("a", 1), ("b", None)],
        '[["a", 1], ["b", null]]',
    ),
    _arrow("union", pa.sparse_union([pa.field("a", pa.int64())]), 1, COLUMN, in_parquet=False),
    _arrow(
        "extension fixed_shape_tensor",
        pa.fixed_shape_tensor(pa.int8(), [2]),
        [1, 2],
        "[1, 2]",
        COLUMN,
        ("1", "2"),
    ),
    _arrow(
        "any other extension: as it is stored",
        _Point(),
        [1, 2],
        "[1, 2]",
        COLUMN,
        ("1", "2"),
        in_parquet=False,
    ),
)
"""Values of Parquet columns, and of Arrow types that no Parquet file has."""
