"""Uploaded files."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.errors import NotFound
from jobs.queries import paging
from jobs.tables import File


def get(session: Session, file_id: str, *, project_id: str) -> File:
    """The file. Raises ``NotFound``, for another project's file too."""
    file = session.scalar(sa.select(File).where(File.id == file_id, File.project_id == project_id))
    if file is None:
        raise NotFound(f"no file {file_id!r} in this project; upload it first", param="file")
    return file


def page(
    session: Session, *, project_id: str, limit: int, after: str | None = None
) -> tuple[list[File], bool]:
    """Files, newest first, beginning behind the file ``after``; and whether there are more."""
    query = sa.select(File).where(File.project_id == project_id)
    if after is not None:
        place = get(session, after, project_id=project_id)
        query = query.where(
            sa.tuple_(File.created_at, File.id) < sa.tuple_(place.created_at, place.id)
        )
    query = query.order_by(File.created_at.desc(), File.id.desc())
    return paging.page(session, query, limit=limit)
