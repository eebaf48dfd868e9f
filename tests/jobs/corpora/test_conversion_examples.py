"""The table of conversions is right for files of every format."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.corpora import arrow_values, fast_path, readers, values
from jobs.corpora import targets as target_values
from jobs.corpora.conversion_examples import (
    ARROW,
    CSV,
    JSON,
    ArrowConversion,
    Conversion,
    JsonConversion,
    Refused,
)
from jobs.corpora.records import Broken
from jobs.corpora.targets import TargetKind
from jobs.errors import CorpusFailure
from jobs.kinds import Corpus, LabelledCorpus
from jobs.row_codes import RowCode
from tests.jobs.corpora.small_corpora import MAX_ROW_BYTES, Row, source


def outcome(read: Callable[[], Any]) -> Any:
    """What reading gives, or the code of the corpus refused."""
    try:
        return read()
    except CorpusFailure as failure:
        return Refused(failure.code)


def first(data: bytes, name: str, corpus: Corpus, targets: TargetKind | None = None) -> Row:
    """The first row."""
    batches = readers.read(source(data, name), corpus, max_row_bytes=MAX_ROW_BYTES, targets=targets)
    row: Row = next(batches).to_pylist()[0]
    return row


def read(data: bytes, name: str, given: str) -> Conversion:
    """What the column `v` of the first row, beside `text`, becomes in each of its parts."""
    labelled = LabelledCorpus(file="f", text_column="text", target_column="v")
    with_ids = Corpus(file="f", text_column="text", id_column="v")
    plain = Corpus(file="f", text_column="v")
    return Conversion(
        given,
        id=outcome(lambda: first(data, name, with_ids)["id"]),
        text=outcome(lambda: value(first(data, name, plain), "text")),
        label=outcome(lambda: value(first(data, name, labelled, TargetKind.LABEL), "target")),
        labels=outcome(lambda: several(first(data, name, labelled, TargetKind.LABELS))),
    )


def value(row: Row, column: str) -> Any:
    return row[column] if row["error_code"] is None else RowCode(row["error_code"])


def several(row: Row) -> Any:
    result = value(row, "target")
    return result if isinstance(result, RowCode) else tuple(target_values.labels(result))


def common(conversion: Conversion) -> Conversion:
    """The conversion without fields of one format only."""
    return Conversion(**{each.name: getattr(conversion, each.name) for each in fields(Conversion)})


@pytest.mark.parametrize("conversion", JSON, ids=lambda each: each.given or "absent")
def test_a_json_value_is_converted_as_in_the_table(conversion: JsonConversion) -> None:
    member = f', "v": {conversion.given}' if conversion.given else ""
    rows = f'{{"text": "x"{member}}}\n{{"text": "x", "v": "so that there is the column"}}\n'
    assert read(rows.encode(), "a.jsonl", conversion.given) == common(conversion)


@pytest.mark.parametrize("conversion", JSON, ids=lambda each: each.given or "absent")
def test_the_fast_path_converts_json_as_in_the_table(conversion: JsonConversion) -> None:
    member = f', "v": {conversion.given}' if conversion.given else ""
    rows = f'{{"text": "x"{member}}}\n' * (2 * fast_path.MIN_BLOCK // 20)
    corpus = Corpus(file="f", text_column="text", id_column="v")
    if conversion.given:
        assert first(rows.encode(), "a.jsonl", corpus)["id"] == conversion.id


@pytest.mark.parametrize("conversion", [each for each in JSON if each.given])
def test_the_content_of_a_message_is_converted_as_in_the_table(conversion: JsonConversion) -> None:
    content = json.loads(conversion.given)
    if isinstance(conversion.chat, RowCode):
        with pytest.raises(ValueError, match="content must be a string or a list of"):
            values.message_text(content)
    else:
        assert values.message_text(content) == conversion.chat


@pytest.mark.parametrize("kind", ["csv", "tsv"])
@pytest.mark.parametrize("conversion", CSV, ids=lambda each: each.given or "empty")
def test_a_csv_cell_is_converted_as_in_the_table(conversion: Conversion, kind: str) -> None:
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter="," if kind == "csv" else "\t")
    writer.writerows([("text", "v"), ("x", conversion.given)])
    data = file.getvalue().encode()
    assert read(data, f"a.{kind}", conversion.given) == common(conversion)


IN_PARQUET = [each for each in ARROW if each.in_parquet]


@pytest.mark.parametrize("conversion", IN_PARQUET, ids=lambda each: each.given)
def test_a_parquet_value_is_converted_as_in_the_table(conversion: ArrowConversion) -> None:
    file = io.BytesIO()
    table = pa.table({"text": ["x"], "v": conversion.array()})
    pq.write_table(table, file, version="2.6")
    assert pq.read_schema(file).field("v").type == table.schema.field("v").type
    assert read(file.getvalue(), "a.parquet", conversion.given) == common(conversion)


@pytest.mark.parametrize("conversion", ARROW, ids=lambda each: each.given)
def test_an_arrow_value_is_converted_as_in_the_table(conversion: ArrowConversion) -> None:
    array = conversion.array()
    is_refused = arrow_values.type_without_text(array.type) is not None
    assert is_refused == (conversion.id is Refused.COLUMN_WRONG_TYPE)
    if not is_refused:
        nulls = pa.concat_arrays([pa.nulls(1, array.type), array, pa.nulls(1, array.type)])
        for padded in (nulls, nulls[1:]):
            result = arrow_values.texts(padded)
            assert result.type == pa.string()
            assert result.to_pylist() == [None, conversion.id, None][-len(padded) :]
    assert arrow_values.is_text(array.type) == (conversion.text == "a")
    assert arrow_values.is_label(array.type) == (conversion.label is not Refused.COLUMN_WRONG_TYPE)
    assert arrow_values.is_labels(array.type) == (
        conversion.labels is not Refused.COLUMN_WRONG_TYPE
    )
    if arrow_values.is_labels(array.type):
        (labels,) = arrow_values.labels(array)
        kind = TargetKind.LABELS
        made = target_values.read(labels, kind, column="v")
        result = made.code if isinstance(made, Broken) else tuple(target_values.labels(made))
        assert result == conversion.labels


INNER = st.none() | st.lists(st.none() | st.integers(-9, 9), min_size=2, max_size=2)
NESTED = [
    pa.list_(pa.int8()),
    pa.large_list(pa.int8()),
    pa.list_(pa.int8(), 2),
    pa.list_view(pa.int8()),
    pa.large_list_view(pa.int8()),
    pa.struct({"a": pa.list_(pa.int8())}),
    pa.map_(pa.string(), pa.int8()),
]


@settings(max_examples=100)
@given(st.lists(INNER, max_size=8), st.sampled_from(NESTED), st.integers(0, 3), st.integers(0, 8))
def test_nested_ids_are_the_json_of_their_values(
    lists: list[Any], kind: pa.DataType, begin: int, length: int
) -> None:
    made: list[Any] = lists
    if pa.types.is_struct(kind):
        made = [each and {"a": each} for each in lists]
    elif pa.types.is_map(kind):
        made = [each and [("k", value) for value in each] for each in lists]
    inner = pa.array(made, kind)
    for outer in (pa.array([None, made, []], pa.list_(kind)), inner, inner.slice(begin, length)):
        expected = outer.to_pylist()
        result = arrow_values.texts(outer).to_pylist()
        assert [None if each is None else json.loads(each) for each in result] == plain(expected)


def plain(result: Any) -> Any:
    """Pairs of maps as lists, as JSON has them."""
    if isinstance(result, list | tuple):
        return [plain(each) for each in result]
    return (
        {key: plain(each) for key, each in result.items()} if isinstance(result, dict) else result
    )


@pytest.mark.parametrize(
    ("kind", "expected"),
    [(pa.uuid(), '["00010203-0405-0607-0809-0a0b0c0d0e0f"]'), (pa.bool8(), "[true]")],
)
def test_extensions_inside_lists_are_written_as_outside(kind: pa.DataType, expected: str) -> None:
    alone = next(each.array() for each in ARROW if each.array().type == kind)
    for lists in (
        pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), alone),
        pa.LargeListArray.from_arrays(pa.array([0, 1], pa.int64()), alone),
        pa.FixedSizeListArray.from_arrays(alone, 1),
        pa.ListViewArray.from_arrays(pa.array([0], pa.int32()), pa.array([1], pa.int32()), alone),
    ):
        assert arrow_values.texts(lists).to_pylist() == [expected]


def test_the_table_has_every_arrow_type() -> None:
    shown = {each.array().type.id for each in ARROW}
    known = {type_id for name, type_id in vars(pa.lib).items() if name.startswith("Type_")}
    no_arrays = {  # pyarrow cannot make these; they are refused like their relatives that it can
        pa.lib.Type_INTERVAL_MONTHS,
        pa.lib.Type_INTERVAL_DAY_TIME,
        pa.lib.Type_DENSE_UNION,
    }
    assert known - shown <= no_arrays


def test_every_kind_has_an_example() -> None:
    shown = {arrow_values.kind_of(each.array().type).name for each in ARROW}
    assert shown == {kind.name for kind in arrow_values.KINDS}
