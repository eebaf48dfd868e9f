"""Parquet files of a few kilobytes that become very large when they are decoded."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

LARGE = 120 * 10**6
"""Bytes; more than a decoder of the tests may take."""
ROWS = 100


def parquet(columns: dict[str, Any], **options: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file, **{"write_statistics": False, **options})
    return file.getvalue()


def one_value(size: int, *, compression: str = "zstd", rows: int = 1) -> bytes:
    """The same text of this size in every row, once in the file's dictionary."""
    entry = pa.array(["x" * size], pa.large_string())
    values = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), entry)
    return parquet({"text": values}, compression=compression, store_schema=False)


def plain_page(compression: str) -> bytes:
    """One page with one text."""
    text = pa.array(["x" * LARGE], pa.large_string())
    return parquet({"text": text}, compression=compression, use_dictionary=False)


def lying_footer() -> bytes:
    """A page of 120 MB of which the footer says that it has two."""
    data = plain_page("zstd")
    true_size = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0).total_byte_size
    assert _varint(true_size) in data
    return data.replace(_varint(true_size), _varint(2 * 2**20))


def _varint(number: int) -> bytes:
    """As Thrift's compact protocol writes a signed number."""
    number <<= 1
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def long_list() -> bytes:
    """One row whose id is a list of fifteen million nulls."""
    nulls = pa.nulls(LARGE // 8, pa.int64())
    lists = pa.LargeListArray.from_arrays([0, len(nulls)], nulls)
    return parquet({"text": ["short"], "id": lists}, compression="zstd")


HOSTILE: dict[str, Callable[[], bytes]] = {
    "a dictionary of one text": lambda: one_value(LARGE, rows=ROWS),
    "a page of zstd": lambda: plain_page("zstd"),
    "a page of gzip": lambda: plain_page("gzip"),
    "a footer that lies": lying_footer,
    "a list of nulls": long_list,
}
"""Each is refused when a decoder may take 64 MiB."""
