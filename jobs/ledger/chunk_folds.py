"""Chunks of ended jobs fold into objects, a few thousand at a time, and unfold before a retry.

    begin     registers the key of the object before its first byte is stored
    commit    lets the fold count and deletes the rows in it, if they are still what was stored
    stop      a retry comes: nothing more is folded
    restore   makes rows of one fold again

Each is one short transaction under the lock on the row of the job. A process that dies between two
of them leaves each chunk as a row or in a fold that counts, and at most an object that the next
``begin`` forgets. The objects themselves are no business of this module (``jobs.folding``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.orm import Session

from jobs.decisions import chunk_sums
from jobs.decisions.chunk_sums import ChunkRow
from jobs.errors import LeaseLost
from jobs.lookups import chunk_folds as lookup
from jobs.lookups import predicates
from jobs.lookups.chunk_folds import FoldedChunks
from jobs.retention import Piece
from jobs.states import ChunkState
from jobs.tables import Chunk, ChunkFold, FoldedDamage, Job, Removal, Shard

CHUNKS = 5_000
"""Of one fold: what a process has in memory, and what one transaction deletes or inserts."""

RETRY_PAUSE = timedelta(hours=1)
"""For so long a job that was unfolded is not folded again, even if its retry never came."""

_TABLE = cast("sa.Table", Chunk.__table__)
_COLUMNS: tuple[sa.ColumnElement[Any], ...] = tuple(
    sa.cast(column, sa.Text).label(column.name)
    if isinstance(column.type, sa.JSON | sa.Enum)
    else column
    for column in _TABLE.columns
)
"""All columns of a chunk; JSON and states as texts, which COPY takes back as they are."""

_OWN = Removal.piece == Piece.CHUNKS


def begin(
    session: Session, job_id: str, *, key: str, duration: timedelta
) -> Sequence[ChunkRow] | None:
    """Register the object of the job's next fold; returns the chunks to be stored in it.

    Empty: all are folded. ``None``: the job is not to be folded (any more). The process has the
    job for ``duration``. What a process that died has registered is forgotten.
    """
    if not _may_fold(session, job_id):
        return None
    session.execute(
        sa.delete(ChunkFold).where(ChunkFold.job_id == job_id, ChunkFold.sha256.is_(None))
    )
    chunks = _next(session, job_id)
    if chunks:
        sums = vars(chunk_sums.of(chunks))
        session.execute(insert(ChunkFold).values(key=key, job_id=job_id, **sums))
    due = sa.func.now() + duration if chunks else None
    session.execute(sa.update(Removal).where(Removal.job_id == job_id, _OWN).values(purge_at=due))
    return chunks


def commit(
    session: Session, job_id: str, chunks: Sequence[ChunkRow], *, key: str, sha256: str, size: int
) -> None:
    """Let the fold count, and delete the rows of its chunks.

    Raises ``LeaseLost`` if the job is not to be folded any more, another process has begun to, or
    a row is not what was stored.
    """
    made = _may_fold(session, job_id) and session.scalar(
        sa.update(ChunkFold)
        .where(ChunkFold.key == key, ChunkFold.sha256.is_(None))
        .values(sha256=sha256, bytes=size)
        .returning(ChunkFold.key)
    )
    if not made:
        raise LeaseLost(f"the chunks of {job_id} are not to be folded any more")
    ids = [chunk["id"] for chunk in chunks]
    deleted = sa.delete(_TABLE).where(_TABLE.c.id == _any(ids)).returning(*_COLUMNS)
    gone = {row["id"]: dict(row) for row in session.execute(deleted).mappings()}
    if any(gone.get(chunk["id"]) != chunk for chunk in chunks):
        raise LeaseLost(f"a chunk of {job_id} has changed since it was stored in {key}")


def release(session: Session, job_id: str) -> None:
    """The job is due again at once: there is more to fold."""
    mark = sa.update(Removal).where(Removal.job_id == job_id, _OWN, Removal.purge_at.is_not(None))
    session.execute(mark.values(purge_at=sa.func.now()))


def stop(session: Session, job_id: str) -> list[FoldedChunks]:
    """Fold nothing of the job for an hour; what is folded of it, in row order."""
    _lock(session, job_id)
    session.execute(sa.delete(Removal).where(Removal.job_id == job_id, _OWN))
    session.execute(
        sa.update(Job)
        .where(Job.id == job_id, predicates.job_ended())
        .values(retention_at=sa.func.now() + RETRY_PAUSE)
    )
    return lookup.of_job(session, job_id)


def restore(session: Session, fold: FoldedChunks, chunks: Sequence[Mapping[str, Any]]) -> bool:
    """Make rows of the chunks of a fold, as they were; ``False``: another process has done so."""
    if not _forget(session, fold):
        return False
    damage = lookup.damage(session, fold.job_id)
    rows = []
    for chunk in chunks:
        found = damage.get(chunk["id"])
        is_it = found is not None and found.part_key == chunk["part_key"]
        rows.append({**chunk, "damage": found.reason} if found and is_it else chunk)
    _copy(session, rows)
    _forget_damage(session, fold.job_id, [chunk["id"] for chunk in chunks])
    return True


def forget(session: Session, job_id: str) -> None:
    """Remove what processes that died have left of a job without folds, before its retry."""
    session.execute(sa.delete(ChunkFold).where(ChunkFold.job_id == job_id))
    session.execute(sa.delete(FoldedDamage).where(FoldedDamage.job_id == job_id))


def compute_again(session: Session, fold: FoldedChunks) -> bool:
    """Make new chunks of the rows of a fold whose object is damaged: they are computed again."""
    if not _forget(session, fold):
        return False
    query = sa.select(Shard).where(
        Shard.job_id == fold.job_id,
        Shard.first_row < fold.end_row,
        Shard.first_row + Shard.rows > fold.first_row,
    )
    size = max(1, -(-(fold.end_row - fold.first_row) // fold.chunks))
    chunks = [
        chunk for shard in session.scalars(query) for chunk in _cut(shard, fold, max_rows=size)
    ]
    if chunks:
        session.execute(insert(Chunk), chunks)
    return True


def _cut(shard: Shard, fold: FoldedChunks, *, max_rows: int) -> Iterator[dict[str, Any]]:
    end = min(shard.first_row + shard.rows, fold.end_row)
    for first_row in range(max(shard.first_row, fold.first_row), end, max_rows):
        yield {
            "job_id": shard.job_id,
            "shard_index": shard.index,
            "first_row": first_row,
            "rows": min(max_rows, end - first_row),
        }


def _may_fold(session: Session, job_id: str) -> bool:
    """Whether the job is at rest and marked; its row is locked until the transaction ends."""
    at_rest = session.scalar(
        sa.select(Job.id)
        .where(Job.id == job_id, predicates.job_ended(), ~predicates.job_busy())
        .with_for_update(of=Job)
    )
    marked = sa.select(Removal.job_id).where(Removal.job_id == job_id, _OWN)
    return at_rest is not None and session.scalar(marked) is not None


def _next(session: Session, job_id: str) -> Sequence[ChunkRow]:
    """The first chunks that are rows, with those that were split; no fold lies between two."""
    of_job = sa.select(*_COLUMNS).where(_TABLE.c.job_id == job_id)
    split = of_job.where(_TABLE.c.state == ChunkState.SPLIT).limit(CHUNKS)
    found = [dict(row) for row in session.execute(split).mappings()]
    in_order = of_job.where(_TABLE.c.state != ChunkState.SPLIT).order_by(_TABLE.c.first_row)
    rows = session.execute(in_order.limit(CHUNKS - len(found))).mappings()
    live = [dict(row) for row in rows]
    if live:
        folds = (fold.first_row for fold in lookup.of_job(session, job_id))
        end = min((row for row in folds if row > live[0]["first_row"]), default=math.inf)
        found += [chunk for chunk in live if chunk["first_row"] < end]
    return sorted(found, key=lambda chunk: (chunk["first_row"], chunk["id"]))


def _forget(session: Session, fold: FoldedChunks) -> bool:
    _lock(session, fold.job_id)
    forgotten = sa.delete(ChunkFold).where(ChunkFold.key == fold.key).returning(ChunkFold.key)
    return session.scalar(forgotten) is not None


def _forget_damage(session: Session, job_id: str, chunk_ids: list[int]) -> None:
    session.execute(
        sa.delete(FoldedDamage).where(
            FoldedDamage.job_id == job_id, FoldedDamage.chunk_id == _any(chunk_ids)
        )
    )


def _copy(session: Session, chunks: Sequence[Mapping[str, Any]]) -> None:
    """Rows by COPY. Columns that the table has no more are left out."""
    names = [column.name for column in _TABLE.columns if column.name in chunks[0]]
    listed = ", ".join(f'"{name}"' for name in names)
    connection = session.connection().connection.driver_connection
    assert connection is not None
    with (
        connection.cursor() as cursor,
        cursor.copy(f"COPY chunks ({listed}) FROM STDIN") as copy,
    ):
        for chunk in chunks:
            copy.write_row([chunk[name] for name in names])


def _any(ids: list[int]) -> Any:
    return sa.any_(sa.cast(ids, ARRAY(sa.BigInteger)))


def _lock(session: Session, job_id: str) -> None:
    session.execute(sa.select(Job.id).where(Job.id == job_id).with_for_update())
