"""Folded chunks of a job: where they are, and what is added up over them and the rows alike.

Each statement here sees a chunk either as a row or in a fold, never in both or in neither.
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.states import ChunkState
from jobs.tables import Chunk, ChunkFold, FoldedDamage


@dataclass(frozen=True)
class FoldedChunks:
    """Chunks that follow each other, in one object."""

    job_id: str
    key: str
    sha256: str
    first_row: int
    end_row: int
    chunks: int


_COLUMNS = (
    *(ChunkFold.job_id, ChunkFold.key, ChunkFold.sha256),
    *(ChunkFold.first_row, ChunkFold.end_row, ChunkFold.chunks),
)


def written() -> sa.ColumnElement[bool]:
    """Folds that count: their object is there, and their chunks are no rows any more."""
    return ChunkFold.sha256.is_not(None)


def selected() -> sa.Select[str, str, str | None, int, int, int]:
    """What ``FoldedChunks`` is made of, of folds that count."""
    return sa.select(*_COLUMNS).where(written())


def of_job(session: Session, job_id: str, *, from_row: int | None = None) -> list[FoldedChunks]:
    """The job's folds in row order: all, or those that end behind ``from_row``."""
    query = selected().where(ChunkFold.job_id == job_id)
    if from_row is not None:
        query = query.where(ChunkFold.end_row > from_row)
    query = query.order_by(ChunkFold.first_row, ChunkFold.end_row)
    return [made(row) for row in session.execute(query)]


def made(row: sa.Row[str, str, str | None, int, int, int]) -> FoldedChunks:
    """A row of ``selected``."""
    job_id, key, sha256, first_row, end_row, chunks = row
    assert sha256 is not None, "it is written"
    return FoldedChunks(job_id, key, sha256, first_row, end_row, chunks)


def has_any(session: Session, job_id: str) -> bool:
    """Whether a chunk of the job is folded."""
    query = sa.select(ChunkFold.key).where(ChunkFold.job_id == job_id, written()).limit(1)
    return session.scalar(query) is not None


def to_retry(session: Session, job_id: str) -> bool:
    """Whether a retry of a job that has succeeded would find something to do."""
    folded = sa.or_(
        *(ChunkFold.pending > 0, ChunkFold.rows_failed > 0, ChunkFold.damaged > 0),
        ChunkFold.damage.is_not(None),
    )
    as_rows = sa.or_(Chunk.rows_failed > 0, Chunk.damage.is_not(None))
    found = sa.or_(
        sa.exists().where(ChunkFold.job_id == job_id, written(), folded),
        sa.exists().where(FoldedDamage.job_id == job_id),
        sa.exists().where(Chunk.job_id == job_id, Chunk.state != ChunkState.SPLIT, as_rows),
    )
    return bool(session.scalar(sa.select(found)))


def damage(session: Session, job_id: str) -> dict[int, FoldedDamage]:
    """Parts of folded chunks that were found damaged since, by the chunk."""
    query = sa.select(FoldedDamage).where(FoldedDamage.job_id == job_id)
    return {found.chunk_id: found for found in session.scalars(query)}


def done_chunks(job_id: str | sa.BindParameter[str]) -> sa.Subquery:
    """``rows``, ``rows_failed``, ``histogram`` and ``profile`` of what is done of a job."""
    rows = sa.select(Chunk.rows, Chunk.rows_failed, Chunk.histogram, Chunk.profile).where(
        Chunk.job_id == job_id, Chunk.state == ChunkState.DONE
    )
    folds = sa.select(
        ChunkFold.rows, ChunkFold.rows_failed, ChunkFold.histogram, ChunkFold.profile
    ).where(ChunkFold.job_id == job_id, written())
    return sa.union_all(rows, folds).subquery("done_chunks")
