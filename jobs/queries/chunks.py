"""A job's chunks and shards, in the order of the corpus."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.queries import paging
from jobs.states import ChunkState
from jobs.tables import Chunk, Shard


@dataclass(frozen=True)
class DonePart:
    """A committed part and the rows that it stands for."""

    chunk_id: int
    key: str
    bytes: int
    first_row: int
    rows: int
    rows_failed: int
    sha256: str | None  # null: written before hashes were kept


def done_parts(session: Session, job_id: str, *, from_row: int = 0) -> Iterator[DonePart]:
    """Committed parts in row order that end behind ``from_row``, streamed."""
    query = (
        sa.select(
            Chunk.id,
            Chunk.part_key,
            Chunk.part_bytes,
            Chunk.first_row,
            Chunk.rows,
            Chunk.rows_failed,
            Chunk.part_sha256,
        )
        .where(
            Chunk.job_id == job_id,
            Chunk.state == ChunkState.DONE,
            Chunk.first_row + Chunk.rows > from_row,
        )
        .order_by(Chunk.first_row)
        .execution_options(yield_per=1_000)
    )
    for chunk_id, key, size, first_row, rows, rows_failed, sha256 in session.execute(query):
        assert key is not None
        yield DonePart(chunk_id, key, size or 0, first_row, rows, rows_failed or 0, sha256)


def shards(session: Session, job_id: str) -> list[Shard]:
    """The job's shards in order."""
    return list(
        session.scalars(sa.select(Shard).where(Shard.job_id == job_id).order_by(Shard.index))
    )


def page(session: Session, job_id: str, *, limit: int, after: int = -1) -> tuple[list[Chunk], bool]:
    """Chunks not split, in row order, after the row ``after``, and whether more follow."""
    query = (
        sa.select(Chunk)
        .where(Chunk.job_id == job_id, Chunk.state != ChunkState.SPLIT, Chunk.first_row > after)
        .order_by(Chunk.first_row)
    )
    return paging.page(session, query, limit=limit)
