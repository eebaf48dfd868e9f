"""The tables of uploaded files, and of uploads under way."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from jobs.tables.base import Base, listing_and_purge


class File(Base):
    """An uploaded file; its bytes never change."""

    __tablename__ = "files"

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    filename: Mapped[str]  # as the client named it; its ending gives the format
    purpose: Mapped[str]  # as the client gave it; `batch` by default
    bytes: Mapped[int]
    sha256: Mapped[str]
    object_key: Mapped[str]
    tag: Mapped[str | None]  # as the client gave it: a corpus may be every file with it; null: none
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    used_at: Mapped[datetime | None]  # when retention last found that something uses it; null: it
    # has not
    deleted_at: Mapped[datetime | None]  # the row stays as a tombstone; null: it can be used
    purge_at: Mapped[datetime | None]  # when its object is removed, or that is tried again; null:
    # there is nothing to remove

    __table_args__ = (
        CheckConstraint("purge_at IS NULL OR deleted_at IS NOT NULL", name="purge_of_deleted"),
        Index(None, "object_key"),
        Index(None, "project_id", "sha256", postgresql_where=text("deleted_at IS NULL")),
        *listing_and_purge(),
        Index(
            "ix_files_tag",
            *("project_id", "tag", "created_at", "id"),
            postgresql_where=text("tag IS NOT NULL AND deleted_at IS NULL"),
        ),
    )


class UnfinishedUpload(Base):
    """An upload whose object is being written; the row goes when it is a ``File``, or was aborted.

    What a killed process leaves of one in the object store is found, and removed, by this row.
    """

    __tablename__ = "uploads"

    id: Mapped[str] = mapped_column(primary_key=True)  # of the file that it becomes
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    object_key: Mapped[str]
    fence: Mapped[int] = mapped_column(server_default=text("1"))  # grows with each claim to remove
    lease_expires_at: Mapped[datetime]  # its process renews it, or whichever removes it
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (Index(None, "lease_expires_at"),)
