"""Shards and parts as Parquet objects: their names, and reading row ranges of them."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.objects import ObjectStore

ROW_GROUP = 2_000
"""Rows that are read together; a chunk reads the row groups that it overlaps, and no more."""

SELDOM_REPEATED = frozenset({"row", "line", "id", "text"})


def shard_key(job_id: str, *, index: int, fence: int) -> str:
    """Where a planner writes a shard; the fence keeps a replaced planner's object apart."""
    return f"jobs/{job_id}/shards/{index:06d}-{fence}.parquet"


def part_key(job_id: str, *, first_row: int, chunk_id: int, fence: int) -> str:
    """Where a worker writes a part; names sort in row order, the fence keeps late writers apart."""
    return f"jobs/{job_id}/parts/{first_row:012d}-{chunk_id}-{fence}.parquet"


def output_key(job_id: str, *, name: str, fence: int, ending: str) -> str:
    """Where the finalizer writes a manifest or a file."""
    return f"jobs/{job_id}/output/{name}-{fence}.{ending}"


def write(store: ObjectStore, key: str, table: pa.Table) -> int:
    """Write a table of at most a shard's size as one object; its length in bytes.

    Texts and ids hardly ever repeat within a row group: a dictionary of them would be made in vain,
    and nobody asks for the first and the last of them. Into a buffer of Arrow's own it is written
    without waiting for other threads of Python, page by page.
    """
    stream = pa.BufferOutputStream()
    repeating = [name for name in table.column_names if name not in SELDOM_REPEATED]
    pq.write_table(
        table,
        stream,
        row_group_size=ROW_GROUP,
        compression="zstd",
        use_dictionary=repeating,
        write_statistics=False,
    )
    buffer = stream.getvalue()
    store.put(key, memoryview(buffer).cast("B"))
    return int(buffer.size)


def read(store: ObjectStore, key: str) -> pa.Table:
    """A whole shard or part."""
    with store.reader(key) as file:
        return pq.read_table(file)


def read_rows(store: ObjectStore, key: str, *, offset: int, rows: int) -> pa.Table:
    """``rows`` rows from ``offset`` on, reading only the row groups that hold them."""
    with store.reader(key) as file, pq.ParquetFile(file) as parquet:
        first, last = offset // ROW_GROUP, (offset + rows - 1) // ROW_GROUP
        groups = parquet.read_row_groups(list(range(first, last + 1)), use_threads=False)
        return groups.slice(offset - first * ROW_GROUP, rows)
