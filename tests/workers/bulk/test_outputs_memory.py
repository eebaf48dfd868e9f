"""A single file takes the memory of a few parts to write or read, for any number of parts."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import objects
from jobs.kinds import OutputFormat
from jobs.results import outputs
from tests.support.result_schemas import embed_schema
from workers.bulk import result_table

pytestmark = pytest.mark.alone

ROWS, WIDTH = 4_000, 256
AS_PYTHON = ROWS * WIDTH * 32
"""Bytes of all values as Python objects in lists."""


@pytest.fixture(scope="module")
def part() -> pa.Table:
    schema = embed_schema(WIDTH)
    values = np.random.default_rng(0).random(ROWS * WIDTH, np.float32)
    vectors = pa.FixedSizeListArray.from_arrays(
        pa.array(values), type=schema.field("embedding").type
    )
    filled = {"row": pa.array(range(ROWS)), "embedding": vectors}
    columns = [filled.get(field.name, pa.nulls(ROWS, field.type)) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


@pytest.mark.parametrize("output_format", [OutputFormat.JSONL, OutputFormat.CSV])
def test_a_file_of_vectors_is_written_in_blocks_of_rows(
    part: pa.Table, output_format: OutputFormat, tmp_path: Path
) -> None:
    store = objects.connect(tmp_path.as_uri())
    tracemalloc.start()
    try:
        count = outputs.write_file(store, "file", [part], output_format=output_format).rows
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == ROWS
    assert peak < AS_PYTHON / 2


def test_result_rows_are_made_in_blocks(part: pa.Table) -> None:
    tracemalloc.start()
    try:
        count = sum(1 for _ in result_table.result_rows("job", part))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == ROWS
    assert peak < AS_PYTHON / 4


@pytest.mark.parametrize(("rows", "width"), [(100, 0), (2_000, 0), (50, 256), (50_000, 0)])
def test_a_file_of_parquet_has_row_groups_by_rows_and_bytes_and_not_by_parts(
    rows: int, width: int, tmp_path: Path
) -> None:
    """Writer and reader keep metadata of every row group: a part must not be a row group."""
    vectors = [pa.array([bytes(4 * width)] * rows)] if width else []
    columns = [pa.array(range(rows)), *vectors]
    part = pa.Table.from_arrays(columns, names=["row", "vector"][: len(columns)])
    parts = max(3, 3 * outputs.GROUP_ROWS // rows)
    store = objects.connect(tmp_path.as_uri())
    count = outputs.write_file(store, "f", [part] * parts, output_format=OutputFormat.PARQUET).rows
    assert count == parts * rows
    with store.reader("f") as file:
        found = pq.ParquetFile(file)
        groups = [found.metadata.row_group(index) for index in range(found.num_row_groups)]
        assert found.read().to_pylist() == (part.to_pylist() * parts)
    assert sum(group.num_rows for group in groups) == count
    for group in groups[:-1]:
        held = group.num_rows * part.nbytes / rows
        assert group.num_rows >= outputs.GROUP_ROWS or held >= outputs.GROUP_BYTES
        assert group.num_rows < outputs.GROUP_ROWS + rows
        assert held < outputs.GROUP_BYTES + 2 * part.nbytes
