"""The tables of retention: what was removed of jobs, and what the object store holds."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, Integer, func, text
from sqlalchemy.orm import Mapped, mapped_column

from jobs.retention import Piece
from jobs.tables.base import Base, one_of


class Removal(Base):
    """A piece of an ended job that retention has removed; a retry of the job forgets it."""

    __tablename__ = "removals"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    piece: Mapped[str] = mapped_column(primary_key=True)  # jobs.retention.Piece
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    purge_at: Mapped[datetime | None]  # when its objects and rows are removed, or that is tried
    # again; null: there is nothing to remove any more

    __table_args__ = (
        CheckConstraint(one_of("piece", Piece), name="piece"),
        Index(None, "purge_at", postgresql_where=text("purge_at IS NOT NULL")),
    )


class CollectionRound(Base):
    """The last round of the garbage collector, and who is at it; one row."""

    __tablename__ = "collection_rounds"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)  # always 1
    fence: Mapped[int] = mapped_column(server_default=text("0"))  # grows with each round
    leased_until: Mapped[datetime | None]  # null: no process is at it
    ended_at: Mapped[datetime] = mapped_column(server_default=func.now())  # the last one; before
    # the first, when this row was made
    measured_at: Mapped[datetime | None]  # when the round of ``storage_usage`` began; null: none

    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)


class StorageUsage(Base):
    """Objects of one kind that a project had in the store when they were counted last."""

    __tablename__ = "storage_usage"

    project_id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)  # jobs.decisions.stored_objects.ObjectKind
    objects: Mapped[int]
    bytes: Mapped[int]
