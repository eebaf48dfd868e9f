"""Chunks of jobs that ended long ago: their rows are in objects, and only sums of them are here.

A chunk is a row of ``chunks`` or in exactly one fold that is written, at every moment: the
transaction that lets a fold count deletes the rows that are in it (docs/decisions/0050).
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, func
from sqlalchemy.orm import Mapped, mapped_column

from jobs.tables.base import Base, Json


class ChunkFold(Base):
    """Some chunks of an ended job, in one object."""

    __tablename__ = "chunk_folds"

    key: Mapped[str] = mapped_column(primary_key=True)  # of the object; no two folds have the same
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    first_row: Mapped[int]  # of its first chunk
    end_row: Mapped[int]  # behind its last chunk
    sha256: Mapped[str | None]  # of the object; null: it is being written, or was by a process that
    # died, and its chunks are rows
    bytes: Mapped[int | None]  # null as ``sha256`` is
    damage: Mapped[str | None]  # why the object cannot be read, by who last tried; null: not known
    # to be damaged. A retry computes its rows again
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    # Sums over the chunks in it, as ``jobs.decisions.chunk_sums`` makes them.
    chunks: Mapped[int]  # with those that were split
    pending: Mapped[int]  # of these
    done: Mapped[int]
    damaged: Mapped[int]  # whose part was known to be damaged before they were folded
    rows: Mapped[int]  # of chunks that are done
    rows_failed: Mapped[int]
    tokens: Mapped[int]
    seconds: Mapped[float]
    rows_checked: Mapped[int]
    rows_agreeing: Mapped[int]
    rows_answered: Mapped[int]
    rows_truncated: Mapped[int]
    rows_near_tie: Mapped[int]
    tokens_read: Mapped[int]
    tokens_unknown: Mapped[int]
    histogram: Mapped[Json]  # these three of chunks that are done, in the form that a chunk has
    errors: Mapped[Json]
    profile: Mapped[Json]

    __table_args__ = (
        CheckConstraint("(sha256 IS NULL) = (bytes IS NULL)", name="written_whole"),
        Index(None, "job_id", "first_row"),
    )


class FoldedDamage(Base):
    """That the part of a folded chunk cannot be read; its ``damage``, once the chunk unfolds."""

    __tablename__ = "folded_damage"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    chunk_id: Mapped[int] = mapped_column(primary_key=True)
    part_key: Mapped[str]
    reason: Mapped[str]
