"""A part of many vectors becomes text without all of its numbers in Python at once."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from jobs import objects, outputs
from jobs.rows import embed_schema
from jobs.specs import OutputFormat
from workers import answers

ROWS, WIDTH = 4_000, 256
AS_PYTHON = ROWS * WIDTH * 32
"""Bytes of all numbers as objects in lists."""


@pytest.fixture(scope="module")
def part() -> pa.Table:
    schema = embed_schema(WIDTH)
    numbers = np.random.default_rng(0).random(ROWS * WIDTH, np.float32)
    vectors = pa.FixedSizeListArray.from_arrays(
        pa.array(numbers), type=schema.field("embedding").type
    )
    nothing = {"row": pa.array(range(ROWS)), "embedding": vectors}
    columns = [nothing.get(field.name, pa.nulls(ROWS, field.type)) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


@pytest.mark.parametrize("output_format", [OutputFormat.JSONL, OutputFormat.CSV])
def test_a_file_of_vectors_is_written_some_rows_at_a_time(
    part: pa.Table, output_format: OutputFormat, tmp_path: Path
) -> None:
    store = objects.connect(tmp_path.as_uri())
    tracemalloc.start()
    try:
        count = outputs.write_file(store, "file", [part], output_format=output_format)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == ROWS
    assert peak < AS_PYTHON / 2


def test_result_rows_are_made_some_at_a_time(part: pa.Table) -> None:
    tracemalloc.start()
    try:
        count = sum(1 for _ in answers.result_rows("job", part))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == ROWS
    assert peak < AS_PYTHON / 4
