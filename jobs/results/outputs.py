"""A job's outputs: the manifest of its parts, and one single file when asked."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.kinds import OutputFormat
from jobs.objects import ObjectStore
from jobs.queries.chunks import DonePart
from jobs.results import parts

ENDINGS = {
    OutputFormat.JSONL: "jsonl",
    OutputFormat.CSV: "csv",
    OutputFormat.PARQUET: "parquet",
}

ROWS_AT_ONCE = 256
"""Rows of a text file that are objects of Python at one time: a vector is a thousand of them."""

GROUP_ROWS = 2**16
GROUP_BYTES = 2**24
"""Parts become row groups of so many rows, or bytes in memory, or more by less than one part. Who
writes or reads a Parquet file holds kilobytes of every row group of it."""


def tables(
    store: ObjectStore,
    done: Iterable[DonePart],
    *,
    schema: pa.Schema,
    keep_text: bool,
    beat: Callable[[], None],
) -> Iterator[pa.Table]:
    """Each part's rows in row order, one part in memory at a time; first, the columns alone."""
    dropped = [] if keep_text else ["text"]
    yield schema.empty_table().drop_columns(dropped)
    for part in done:
        beat()
        yield parts.read(store, part).drop_columns(dropped)


@dataclass(frozen=True)
class File:
    """A single file that was written."""

    rows: int
    bytes: int
    sha256: str


def write_file(
    store: ObjectStore, key: str, rows: Iterable[pa.Table], *, output_format: OutputFormat
) -> File:
    """Write one single file."""
    write = {
        OutputFormat.JSONL: _write_jsonl,
        OutputFormat.CSV: _write_csv,
        OutputFormat.PARQUET: _write_parquet,
    }[output_format]
    with store.writer(key) as sink:
        hashed = _Hashed(sink)
        count = write(cast("IO[bytes]", hashed), rows)
        return File(count, hashed.tell(), hashed.sha256.hexdigest())


def write_manifest(store: ObjectStore, key: str, manifest: dict[str, Any]) -> None:
    """Write the manifest as JSON."""
    store.put(key, json.dumps(manifest, indent=1, ensure_ascii=False).encode())


def sha256(store: ObjectStore, key: str) -> str:
    """The hash of an object, read once more."""
    content = hashlib.sha256()
    for block in store.stream(key):
        content.update(block)
    return content.hexdigest()


class _Hashed(io.RawIOBase):
    """Passes on what is written, and hashes it."""

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
    """The same rows, not too many at once; an empty table stays for its columns."""
    for table in rows:
        for start in range(0, max(1, table.num_rows), ROWS_AT_ONCE):
            yield table.slice(start, ROWS_AT_ONCE)


def _flat(column: pa.ChunkedArray) -> list[Any]:
    """A column as CSV can hold it: lists become JSON."""
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
    finally:  # here, and not whenever it is collected: it writes to the sink
        if writer is not None:
            writer.close()
    return count


def _row_groups(rows: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in larger tables; one without rows comes where there are none at all."""
    held: list[pa.Table] = []
    size = count = 0
    for table in rows:
        held.append(table)
        count += table.num_rows
        size += table.nbytes
        if count >= GROUP_ROWS or size >= GROUP_BYTES:
            yield pa.concat_tables(held)
            held, size, count = [], 0, 0
    if held:
        yield pa.concat_tables(held)
