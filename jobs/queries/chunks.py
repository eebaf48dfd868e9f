"""A job's chunks and shards, in the order of the corpus."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.lookups import chunk_folds
from jobs.lookups.chunk_folds import FoldedChunks
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


def listed(
    session: Session, job_id: str, *, from_row: int = 0
) -> Iterator[DonePart | FoldedChunks]:
    """What is done of a job behind ``from_row``, in row order, streamed.

    The session must be one snapshot (``database.one_snapshot``). ``jobs.results.chunk_folds`` makes
    parts of what is folded.
    """
    folds: Iterable[DonePart | FoldedChunks] = chunk_folds.of_job(
        session, job_id, from_row=from_row
    )
    yield from heapq.merge(
        folds,
        done_parts(session, job_id, from_row=from_row),
        key=lambda each: each.first_row,
    )


def done_parts(session: Session, job_id: str, *, from_row: int = 0) -> Iterator[DonePart]:
    """Parts of chunks that are rows, in row order, that end behind ``from_row``, streamed."""
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


def after(session: Session, job_id: str, *, limit: int, after: int) -> list[Chunk]:
    """At most ``limit`` chunks that are rows, not split, behind the row ``after``, in row order."""
    query = (
        sa.select(Chunk)
        .where(Chunk.job_id == job_id, Chunk.state != ChunkState.SPLIT, Chunk.first_row > after)
        .order_by(Chunk.first_row)
        .limit(limit)
    )
    return list(session.scalars(query))


@dataclass(frozen=True)
class FailedChunk:
    """A chunk that failed or whose process died, as it last did."""

    number: int | None
    first_row: int
    rows: int
    state: ChunkState
    failures: int
    crashes: int
    error: str


def failed(session: Session, job_id: str, *, limit: int) -> list[FailedChunk]:
    """Chunks with an error of their own, those that are not done first; without texts of rows."""
    query = (
        sa.select(
            *(Chunk.number, Chunk.first_row, Chunk.rows, Chunk.state),
            *(Chunk.failures, Chunk.crashes + Chunk.load_crashes, Chunk.last_error),
        )
        .where(
            Chunk.job_id == job_id,
            Chunk.state != ChunkState.SPLIT,
            Chunk.last_error.is_not(None),
        )
        .order_by(Chunk.state == ChunkState.DONE, Chunk.first_row)
        .limit(limit)
    )
    return [
        FailedChunk(number, first_row, rows, state, failures, crashes, error or "")
        for number, first_row, rows, state, failures, crashes, error in session.execute(query)
    ]
