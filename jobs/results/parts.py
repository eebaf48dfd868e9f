"""Shards and parts as Parquet objects: their names, and reading row ranges of them.

A part is read as a whole and compared with the hash that the ledger has of it. Of a shard only some
rows are read; each of its pages has a checksum.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.errors import Damaged, ObjectMissing, PartDamaged, StorageFault
from jobs.objects import ObjectStore

ROW_GROUP = 2_000
"""Rows that are read together; a chunk reads the row groups that it overlaps, and no more."""

SELDOM_REPEATED = frozenset({"row", "line", "id", "text"})


class Written(NamedTuple):
    """What is known of an object that was written."""

    bytes: int
    sha256: str


class Recorded(Protocol):
    """A part as the ledger has it."""

    @property
    def chunk_id(self) -> int:
        """The chunk whose part it is."""

    @property
    def key(self) -> str:
        """Of its object."""

    @property
    def sha256(self) -> str | None:
        """Of its object; null: written before hashes were kept."""

    @property
    def first_row(self) -> int:
        """Place in the corpus of its first row."""

    @property
    def rows(self) -> int:
        """Rows that it stands for."""


def shard_key(job_id: str, *, index: int, fence: int) -> str:
    """Where a planner writes a shard; the fence keeps a replaced planner's object apart."""
    return f"jobs/{job_id}/shards/{index:06d}-{fence}.parquet"


def folder(job_id: str) -> str:
    """Under which all parts of a job lie."""
    return f"jobs/{job_id}/parts"


def part_key(job_id: str, *, first_row: int, chunk_id: int, fence: int) -> str:
    """Where a worker writes a part; names sort in row order, the fence keeps late writers apart."""
    return f"{folder(job_id)}/{first_row:012d}-{chunk_id}-{fence}.parquet"


def output_key(job_id: str, *, name: str, fence: int, ending: str) -> str:
    """Where the finalizer writes a manifest or a file."""
    return f"jobs/{job_id}/output/{name}-{fence}.{ending}"


def write(store: ObjectStore, key: str, table: pa.Table) -> Written:
    """Write a table of at most a shard's size as one object.

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
        write_page_checksum=True,
    )
    data = memoryview(stream.getvalue()).cast("B")
    store.put(key, data)
    return Written(len(data), hashlib.sha256(data).hexdigest())


def read(store: ObjectStore, part: Recorded, *, columns: Sequence[str] | None = None) -> pa.Table:
    """A whole part, or some of its columns. Raises ``PartDamaged`` where it is not the ledger's."""
    try:
        return read_object(store, part.key, sha256=part.sha256, columns=columns)
    except Damaged as damage:
        last = part.first_row + part.rows - 1
        raise PartDamaged(
            f"{damage.message} (rows {part.first_row} to {last}); `nightshift jobs retry` computes "
            "them anew",
            chunk_id=part.chunk_id,
            key=part.key,
        ) from damage


def read_object(
    store: ObjectStore, key: str, *, sha256: str | None, columns: Sequence[str] | None = None
) -> pa.Table:
    """The part under this key. Raises ``Damaged``; without a hash only for what is not Parquet."""
    with _whole("part", key):
        data = store.get(key)
        found = hashlib.sha256(data).hexdigest()
        if sha256 not in (None, found):
            raise Damaged(f"the part {key} is damaged: its sha256 must be {sha256}, and is {found}")
        return pq.read_table(pa.BufferReader(data), columns=columns)


def read_rows(store: ObjectStore, key: str, *, offset: int, rows: int) -> pa.Table:
    """``rows`` rows of a shard from ``offset`` on, reading only the row groups that hold them.

    Raises ``Damaged`` where it is not what the planner wrote.
    """
    with (
        _whole("shard", key),
        store.reader(key) as file,
        pq.ParquetFile(file, page_checksum_verification=True) as parquet,
    ):
        first, last = offset // ROW_GROUP, (offset + rows - 1) // ROW_GROUP
        if last >= parquet.num_row_groups:
            raise Damaged(f"the shard {key} is damaged: it ends before row {offset + rows}")
        groups = parquet.read_row_groups(list(range(first, last + 1)), use_threads=False)
        return groups.slice(offset - first * ROW_GROUP, rows)


@contextlib.contextmanager
def _whole(what: str, key: str) -> Iterator[None]:
    """Whatever the library raises for an object that is gone or torn is ``Damaged``."""
    try:
        yield
    except ObjectMissing as error:
        raise Damaged(f"the {what} {key} is gone from the object store") from error
    except StorageFault:
        raise
    except (OSError, pa.ArrowException) as error:
        reason = str(error).partition("\n")[0][:200]
        raise Damaged(f"the {what} {key} is damaged: it is not whole Parquet ({reason})") from error
