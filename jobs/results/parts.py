"""Shards and parts as Parquet objects: their keys, and reading and writing them.

A part is read as a whole and compared with the hash in the ledger. Of a shard only a range of rows
is read; each of its pages has a checksum.
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
"""Rows that are read together; a chunk reads only the row groups that it overlaps."""

UNREPEATED_COLUMNS = frozenset({"row", "line", "id", "text"})


class WrittenObject(NamedTuple):
    """Size and hash of a shard or part that was written."""

    bytes: int
    sha256: str


class RecordedPart(Protocol):
    """A part as recorded in the ledger."""

    @property
    def chunk_id(self) -> int: ...

    @property
    def key(self) -> str: ...

    @property
    def sha256(self) -> str | None:
        """None: written by a version before hashes."""

    @property
    def first_row(self) -> int:
        """Index of its first row in the corpus."""

    @property
    def rows(self) -> int: ...


def shard_key(job_id: str, *, index: int, fence: int) -> str:
    """The key of a shard; the fence separates it from that of a replaced planner."""
    return f"jobs/{job_id}/shards/{index:06d}-{fence}.parquet"


def extract_key(job_id: str, split: str, *, fence: int) -> str:
    """The key of what a query returned, as lines of JSON; the fence as of a shard."""
    return f"jobs/{job_id}/extracts/{split}-{fence}.jsonl"


def job_folder(job_id: str) -> str:
    """The common prefix of a job's shards, data, parts, outputs and checkpoints."""
    return f"jobs/{job_id}"


def folder(job_id: str) -> str:
    """The common prefix of all parts of a job."""
    return f"jobs/{job_id}/parts"


def part_key(job_id: str, *, first_row: int, chunk_id: int, fence: int) -> str:
    """The key of a part. Keys sort in row order; the fence separates late writers."""
    return f"{folder(job_id)}/{first_row:012d}-{chunk_id}-{fence}.parquet"


def output_key(job_id: str, *, name: str, fence: int, suffix: str) -> str:
    """The key of a manifest or a single file, which the finalizer writes."""
    return f"jobs/{job_id}/output/{name}-{fence}.{suffix}"


def write(store: ObjectStore, key: str, table: pa.Table) -> WrittenObject:
    """Write a table of at most a shard's size as one object.

    Texts and ids hardly repeat within a row group, so a dictionary of them would be useless;
    statistics are never read. Arrow's own buffer does not need Python's lock for each page.
    """
    stream = pa.BufferOutputStream()
    repeating = [name for name in table.column_names if name not in UNREPEATED_COLUMNS]
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
    return WrittenObject(len(data), hashlib.sha256(data).hexdigest())


def read(
    store: ObjectStore, part: RecordedPart, *, columns: Sequence[str] | None = None
) -> pa.Table:
    """A whole part, or some of its columns. Raises ``PartDamaged`` if it is missing or changed."""
    try:
        return read_object(store, part.key, sha256=part.sha256, columns=columns)
    except Damaged as damage:
        last = part.first_row + part.rows - 1
        raise PartDamaged(
            f"{damage.message} (rows {part.first_row} to {last}); `nightshift jobs retry` computes "
            "them again",
            chunk_id=part.chunk_id,
            key=part.key,
        ) from damage


def read_object(
    store: ObjectStore,
    key: str,
    *,
    sha256: str | None,
    columns: Sequence[str] | None = None,
    what: str = "part",
) -> pa.Table:
    """The part under this key. Raises ``Damaged``; without a hash only if it is not Parquet."""
    with _faults_as_damage(what, key):
        data = store.get(key)
        digest = hashlib.sha256(data).hexdigest()
        if sha256 not in (None, digest):
            raise Damaged(
                f"the {what} {key} is damaged: its sha256 must be {sha256}, and is {digest}"
            )
        names = None if columns is None else list(columns)
        return pq.read_table(pa.BufferReader(data), columns=names)


def read_rows(store: ObjectStore, key: str, *, offset: int, rows: int) -> pa.Table:
    """``rows`` rows of a shard from ``offset`` on, reading only the row groups that hold them.

    Raises ``Damaged`` if the shard is missing or has changed.
    """
    with (
        _faults_as_damage("shard", key),
        store.reader(key) as file,
        pq.ParquetFile(file, page_checksum_verification=True) as parquet,
    ):
        first, last = offset // ROW_GROUP, (offset + rows - 1) // ROW_GROUP
        if last >= parquet.num_row_groups:
            raise Damaged(f"the shard {key} is damaged: it ends before row {offset + rows}")
        groups = parquet.read_row_groups(list(range(first, last + 1)), use_threads=False)
        return groups.slice(offset - first * ROW_GROUP, rows)


@contextlib.contextmanager
def _faults_as_damage(what: str, key: str) -> Iterator[None]:
    """Errors that the library raises for a missing or torn object become ``Damaged``."""
    try:
        yield
    except ObjectMissing as error:
        raise Damaged(f"the {what} {key} is gone from the object store") from error
    except StorageFault:
        raise
    except (OSError, pa.ArrowException) as error:
        reason = str(error).partition("\n")[0][:200]
        raise Damaged(f"the {what} {key} is damaged: it is not whole Parquet ({reason})") from error
