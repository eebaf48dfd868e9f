"""Folded chunks as Parquet objects, and the one place that reads chunks wherever they are.

``parts`` and ``page`` give the same answers for rows, for folds and for a job of which some chunks
are folded. A fold is read as a whole, one in memory at a time, and compared with its hash.
"""

from __future__ import annotations

import heapq
import itertools
import secrets
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from jobs import database
from jobs.database import Sessions
from jobs.decisions.chunk_sums import ChunkRow
from jobs.errors import Damaged
from jobs.ledger import damage
from jobs.lookups import chunk_folds as lookup
from jobs.lookups.chunk_folds import FoldedChunks
from jobs.objects import ObjectStore
from jobs.queries import chunks as queries
from jobs.queries.chunks import DonePart
from jobs.results import parts as objects
from jobs.results.parts import WrittenObject
from jobs.states import ChunkState
from jobs.tables import Chunk

REMEMBERED = 16
"""Folds whose parts ``NamedParts`` has in memory: a few hundred bytes for each chunk."""

_PART = ("id", "state", "first_row", "rows", "rows_failed", "part_key", "part_bytes", "part_sha256")
_SHOWN = (
    *("id", "first_row", "rows", "state", "owner", "crashes", "failures", "last_error", "damage"),
    *("rows_failed", "part_key", "part_bytes", "part_sha256", "tokens", "seconds", "done_at"),
)


def new_key(job_id: str) -> str:
    """A key that no fold has had: no fold names an object that is written late."""
    return f"{objects.job_folder(job_id)}/chunks/{secrets.token_hex(12)}.parquet"


def write(store: ObjectStore, key: str, chunks: Sequence[ChunkRow]) -> WrittenObject:
    """Write the chunks as one object."""
    columns = {
        name: pa.array([chunk[name] for chunk in chunks], type=of) for name, of in _TYPES.items()
    }
    return objects.write(store, key, pa.table(columns))


def read(
    store: ObjectStore, fold: FoldedChunks, *, columns: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """The chunks of a fold, all of their columns or some. Raises ``Damaged``."""
    table = objects.read_object(
        store, fold.key, sha256=fold.sha256, columns=columns, what="list of chunks"
    )
    chunks: list[dict[str, Any]] = table.to_pylist()
    return chunks


def read_for_user(
    sessions: Sessions, store: ObjectStore, fold: FoldedChunks, *, columns: Sequence[str]
) -> list[dict[str, Any]]:
    """The same. Raises ``Damaged`` after recording the damage, so that a retry repairs it."""
    try:
        return read(store, fold, columns=columns)
    except Damaged as found:
        message = (
            f"{found.message} (rows {fold.first_row} to {fold.end_row - 1}); `nightshift jobs "
            "retry` computes them again"
        )
        with sessions.begin() as session:
            damage.mark_fold(session, fold.key, reason=message)
        raise Damaged(message) from found


def parts(
    sessions: Sessions, store: ObjectStore, listed: Iterable[DonePart | FoldedChunks]
) -> Iterator[DonePart]:
    """Committed parts in row order, of what ``queries.chunks.listed`` has listed.

    Raises ``Damaged`` at a fold that cannot be read.
    """
    for each in listed:
        if isinstance(each, DonePart):
            yield each
        else:
            yield from _parts(read_for_user(sessions, store, each, columns=_PART))


def parts_of(store: ObjectStore, fold: FoldedChunks) -> Iterator[DonePart]:
    """The committed parts of one fold, in row order. Raises ``Damaged``."""
    return _parts(read(store, fold, columns=_PART))


def _parts(chunks: Iterable[dict[str, Any]]) -> Iterator[DonePart]:
    for chunk in chunks:
        if chunk["state"] == ChunkState.DONE:
            yield DonePart(
                chunk_id=chunk["id"],
                key=chunk["part_key"],
                bytes=chunk["part_bytes"] or 0,
                first_row=chunk["first_row"],
                rows=chunk["rows"],
                rows_failed=chunk["rows_failed"] or 0,
                sha256=chunk["part_sha256"],
            )


def page(
    sessions: Sessions, store: ObjectStore, job_id: str, *, limit: int, after: int = -1
) -> tuple[list[Chunk], bool]:
    """Chunks not split, in row order, that begin behind the row ``after``; whether more follow."""
    with sessions.begin() as session:
        database.one_snapshot(session)
        rows = queries.after(session, job_id, limit=limit + 1, after=after)
        folds = lookup.of_job(session, job_id, from_row=after + 1)
        found_since = lookup.damage(session, job_id) if folds else {}
    live = (chunk for fold in folds for chunk in _live(sessions, store, fold))
    folded = list(itertools.islice((each for each in live if each.first_row > after), limit + 1))
    for chunk in folded:
        found = found_since.get(chunk.id)
        if found is not None and found.part_key == chunk.part_key:
            chunk.damage = found.reason
    merged = list(heapq.merge(rows, folded, key=lambda chunk: chunk.first_row))
    return merged[:limit], len(merged) > limit


def _live(sessions: Sessions, store: ObjectStore, fold: FoldedChunks) -> Iterator[Chunk]:
    for chunk in read_for_user(sessions, store, fold, columns=_SHOWN):
        if chunk["state"] != ChunkState.SPLIT:
            yield Chunk(**{**chunk, "state": ChunkState(chunk["state"])})


class NamedParts:
    """Which parts the folded chunks of jobs name, for the garbage collector."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._keys: OrderedDict[str, frozenset[str]] = OrderedDict()

    def has(self, folds: Sequence[FoldedChunks], key: str, *, first_row: int | None) -> bool:
        """Whether one of the folds names the part, which begins at a row. Raises ``Damaged``.

        The halves of a chunk that was split may name a part that begins in another fold, so that
        all are asked in the end.
        """
        near = [each for each in folds if _holds(each, first_row)]
        far = [each for each in folds if not _holds(each, first_row)]
        return any(key in self._of(fold) for fold in (*near, *far))

    def _of(self, fold: FoldedChunks) -> frozenset[str]:
        found = self._keys.pop(fold.key, None)
        if found is None:
            chunks = read(self._store, fold, columns=("part_key", "retried_part"))
            keys = (chunk[name] for chunk in chunks for name in ("part_key", "retried_part"))
            found = frozenset(key for key in keys if key is not None)
        self._keys[fold.key] = found
        while len(self._keys) > REMEMBERED:
            self._keys.popitem(last=False)
        return found


def _holds(fold: FoldedChunks, first_row: int | None) -> bool:
    return first_row is not None and fold.first_row <= first_row < fold.end_row


def _arrow(of: sa.types.TypeEngine[Any]) -> pa.DataType:
    """How a column is stored; JSON and states are texts."""
    for types, found in (
        (sa.DateTime, pa.timestamp("us", tz="UTC")),
        (sa.Boolean, pa.bool_()),
        (sa.Integer, pa.int64()),
        (sa.Float, pa.float64()),
    ):
        if isinstance(of, types):
            return found
    return pa.string()


_TYPES = {column.name: _arrow(column.type) for column in Chunk.__table__.columns}
