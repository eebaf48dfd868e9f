"""A job's outputs: the manifest of its parts and, on request, one single file."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.kinds import OutputFormat
from jobs.objects import ObjectStore
from jobs.progress import Beat
from jobs.queries.chunks import DonePart
from jobs.results import parts

SLICE_ROWS = 256
"""Rows of a text file that are Python objects at one time: a vector is a thousand of them."""

GROUP_ROWS = 2**16
GROUP_BYTES = 2**24
"""Parts are gathered into a row group until it has this many rows, or bytes in memory. Writers and
readers of a Parquet file keep kilobytes in memory for each row group."""


def tables(
    store: ObjectStore,
    done: Iterable[DonePart],
    *,
    schema: pa.Schema,
    keep_text: bool,
    beat: Beat,
) -> Iterator[pa.Table]:
    """The parts in row order, one in memory at a time, after an empty table with their columns."""
    dropped = [] if keep_text else ["text"]
    yield schema.empty_table().drop_columns(dropped)
    for part in done:
        beat()
        yield parts.read(store, part).drop_columns(dropped)


@dataclass(frozen=True)
class OutputFile:
    """A single file that was written."""

    rows: int
    bytes: int
    sha256: str


def write_file(
    store: ObjectStore, key: str, rows: Iterable[pa.Table], *, output_format: OutputFormat
) -> OutputFile:
    write = {
        OutputFormat.JSONL: _write_jsonl,
        OutputFormat.CSV: _write_csv,
        OutputFormat.PARQUET: _write_parquet,
    }[output_format]
    with store.writer(key) as sink:
        hashed = _HashedSink(sink)
        count = write(cast("IO[bytes]", hashed), rows)
        return OutputFile(count, hashed.tell(), hashed.sha256.hexdigest())


def write_manifest(store: ObjectStore, key: str, manifest: dict[str, Any]) -> None:
    store.put(key, json.dumps(manifest, indent=1, ensure_ascii=False).encode())


def sha256(store: ObjectStore, key: str) -> str:
    """The hash of an object, read from the store."""
    content = hashlib.sha256()
    for block in store.stream(key):
        content.update(block)
    return content.hexdigest()


class _HashedSink(io.RawIOBase):
    """Hashes what it passes on to the sink."""

    def __init__(self, sink: IO[bytes]) -> None:
        super().__init__()
        self._sink = sink
        self.sha256 = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._sink.tell()

    def write(self, data: object, /) -> int:
        block = memoryview(cast("bytes", data)).cast("B")
        self.sha256.update(block)
        return self._sink.write(block)


def _write_jsonl(sink: IO[bytes], rows: Iterable[pa.Table]) -> int:
    count = 0
    for table in _slices(rows):
        lines = (json.dumps(row, ensure_ascii=False) for row in table.to_pylist())
        sink.write("".join(f"{line}\n" for line in lines).encode())
        count += table.num_rows
    return count


def _write_csv(sink: IO[bytes], rows: Iterable[pa.Table]) -> int:
    count, has_header = 0, False
    for table in _slices(rows):
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        if not has_header:
            writer.writerow(table.column_names)
            has_header = True
        columns = [_flat(column) for column in table.columns]
        writer.writerows(zip(*columns, strict=True))
        sink.write(text.getvalue().encode())
        count += table.num_rows
    return count


def _slices(rows: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in slices; an empty table is kept for its columns."""
    for table in rows:
        for start in range(0, max(1, table.num_rows), SLICE_ROWS):
            yield table.slice(start, SLICE_ROWS)


def _flat(column: pa.ChunkedArray) -> list[Any]:
    """A column for CSV: lists become JSON."""
    values: list[Any] = column.to_pylist()
    if not (pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type)):
        return values
    return [None if value is None else json.dumps(value, ensure_ascii=False) for value in values]


def _write_parquet(sink: IO[bytes], rows: Iterable[pa.Table]) -> int:
    count, writer = 0, None
    try:
        for table in _row_groups(rows):
            writer = writer or pq.ParquetWriter(sink, table.schema, compression="zstd")
            if table.num_rows:
                writer.write_table(table, row_group_size=table.num_rows)
            count += table.num_rows
    finally:  # not when it is garbage collected: closing writes to the sink
        if writer is not None:
            writer.close()
    return count


def _row_groups(rows: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in larger tables, at least one, which may be empty."""
    buffered: list[pa.Table] = []
    size = count = 0
    for table in rows:
        buffered.append(table)
        count += table.num_rows
        size += table.nbytes
        if count >= GROUP_ROWS or size >= GROUP_BYTES:
            yield pa.concat_tables(buffered)
            buffered, size, count = [], 0, 0
    if buffered:
        yield pa.concat_tables(buffered)
