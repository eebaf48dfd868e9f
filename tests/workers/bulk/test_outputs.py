"""The single file returns every value unchanged, in every format."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.kinds import OutputFormat
from jobs.results import outputs
from tests.support.result_schemas import CLASSIFY_SCHEMA
from tests.workers.bulk.conftest import Record, Workshop

AWKWARD = [
    "",
    " ",
    "a,b",
    'say "hi"',
    "two\nlines",
    "cr\r\nlf",
    "\r",
    "naïve 漢字 🙂",
    "\u2028",
    "'",
]
texts = st.one_of(
    st.sampled_from(AWKWARD), st.text(st.characters(codec="utf-8", exclude_characters="\0"))
)
scores = st.floats(0, 1, width=32)


@st.composite
def records(draw: st.DrawFn) -> list[Record]:
    return [
        {
            "row": row,
            "line": row + 1,
            "id": draw(st.none() | texts),
            "text": draw(st.none() | texts),
            "label": draw(st.none() | texts),
            "score": draw(st.none() | scores),
            "labels": draw(st.none() | st.lists(texts, max_size=3)),
            "scores": draw(st.none() | st.lists(scores, max_size=3)),
            "tokens": draw(st.none() | st.integers(0, 2**31 - 1)),
            "truncated": draw(st.none() | st.booleans()),
            "error_code": draw(st.none() | st.just("bad_json")),
            "error_message": draw(st.none() | texts),
        }
        for row in range(draw(st.integers(1, 6)))
    ]


def from_parquet(data: bytes) -> list[Record]:
    return list(pq.read_table(io.BytesIO(data)).to_pylist())


def from_jsonl(data: bytes) -> list[Record]:
    return [json.loads(line) for line in data.decode().split("\n")[:-1]]


def from_csv(data: bytes) -> list[Record]:
    """As a user's program would read it: null and the empty text are the same there."""
    return [
        {name: _typed(name, text) for name, text in row.items()}
        for row in csv.DictReader(io.StringIO(data.decode(), newline=""))
    ]


def _typed(name: str, text: str) -> Any:
    if text == "":
        return None
    kind = CLASSIFY_SCHEMA.field(name).type
    if pa.types.is_list(kind):
        return json.loads(text)
    if pa.types.is_boolean(kind):
        return text == "True"
    if pa.types.is_floating(kind):
        return float(text)
    return int(text) if pa.types.is_integer(kind) else text


READERS: dict[OutputFormat, Callable[[bytes], list[Record]]] = {
    OutputFormat.PARQUET: from_parquet,
    OutputFormat.JSONL: from_jsonl,
    OutputFormat.CSV: from_csv,
}


@pytest.mark.parametrize("output_format", sorted(OutputFormat))
@given(records(), st.integers(1, 3))
@settings(max_examples=25, suppress_health_check=list(HealthCheck))
def test_a_file_holds_every_row_as_it_was(
    workshop: Workshop, output_format: OutputFormat, records: list[Record], step: int
) -> None:
    table = pa.Table.from_pylist(records, schema=CLASSIFY_SCHEMA)
    tables = [table.slice(start, step) for start in range(0, table.num_rows, step)]
    count = outputs.write_file(workshop.store, "file", tables, output_format=output_format).rows
    assert count == len(records)
    found = READERS[output_format](workshop.store.get("file"))
    if output_format is OutputFormat.CSV:
        records = [{name: value or _null(value) for name, value in row.items()} for row in records]
    assert found == records


def _null(value: object) -> object:
    return None if value == "" else value


@pytest.mark.parametrize("output_format", sorted(OutputFormat))
def test_a_write_that_fails_leaves_no_file(workshop: Workshop, output_format: OutputFormat) -> None:
    def tables() -> Any:
        yield pa.Table.from_pylist([{"row": 0}], schema=CLASSIFY_SCHEMA)
        raise OSError("the part cannot be read")

    with pytest.raises(OSError, match="the part cannot be read"):
        outputs.write_file(workshop.store, "torn", tables(), output_format=output_format)
    assert not workshop.store.exists("torn")


@pytest.mark.parametrize(
    ("output_format", "read"),
    [
        (OutputFormat.PARQUET, lambda data: pq.read_table(io.BytesIO(data)).column_names),
        (OutputFormat.CSV, lambda data: next(csv.reader(io.StringIO(data.decode())))),
    ],
)
def test_a_job_without_a_part_has_a_file_of_columns_alone(
    workshop: Workshop, output_format: OutputFormat, read: Callable[[bytes], list[str]]
) -> None:
    nothing = outputs.tables(
        workshop.store, [], schema=CLASSIFY_SCHEMA, keep_text=True, beat=lambda: None
    )
    count = outputs.write_file(workshop.store, "nothing", nothing, output_format=output_format).rows
    assert count == 0
    assert read(workshop.store.get("nothing")) == CLASSIFY_SCHEMA.names
