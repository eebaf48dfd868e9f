"""Uploaded files."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.errors import NotFound
from jobs.queries import paging
from jobs.tables import File


def get(session: Session, file_id: str, *, project_id: str) -> File:
    """The file. Raises ``NotFound``, for another project's file too."""
    file = session.scalar(
        sa.select(File).where(
            File.id == file_id, File.project_id == project_id, File.deleted_at.is_(None)
        )
    )
    if file is None:
        raise NotFound(f"no file {file_id!r} in this project; upload it first", param="file")
    return file


def page(
    session: Session, *, project_id: str, limit: int, after: str | None = None
) -> tuple[list[File], bool]:
    """Files, newest first, beginning behind the file ``after``; and whether there are more.

    The file ``after`` may have been deleted since.
    """
    query = sa.select(File).where(File.project_id == project_id, File.deleted_at.is_(None))
    if after is not None:
        place = session.execute(
            sa.select(File.created_at, File.id).where(
                File.id == after, File.project_id == project_id
            )
        ).one_or_none()
        if place is None:
            raise NotFound(f"no file {after!r} in this project to list after", param="after")
        query = query.where(sa.tuple_(File.created_at, File.id) < sa.tuple_(*place))
    query = query.order_by(File.created_at.desc(), File.id.desc())
    return paging.page(session, query, limit=limit)
