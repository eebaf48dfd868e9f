"""Uploaded files."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.errors import NotFound
from jobs.queries import paging
from jobs.queries.paging import Order
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


def gone(session: Session, file_ids: Sequence[str], *, project_id: str) -> list[str]:
    """Of these files those that the project does not have, or not any more."""
    there = set(
        session.scalars(
            sa.select(File.id).where(
                File.id.in_(file_ids), File.project_id == project_id, File.deleted_at.is_(None)
            )
        )
    )
    return [each for each in file_ids if each not in there]


def page(
    session: Session,
    *,
    project_id: str,
    limit: int,
    after: str | None = None,
    order: Order = Order.DESC,
    purpose: str | None = None,
    tag: str | None = None,
) -> tuple[list[File], bool]:
    """Files by age, beginning behind the file ``after``; and whether there are more.

    The file ``after`` may have been deleted since.
    """
    query = sa.select(File).where(File.project_id == project_id, File.deleted_at.is_(None))
    if purpose is not None:
        query = query.where(File.purpose == purpose)
    if tag is not None:
        query = query.where(File.tag == tag)
    place = None if after is None else _place(session, after, project_id=project_id)
    query = paging.sort(query, File.created_at, File.id, order=order, after=place)
    return paging.page(session, query, limit=limit)


def _place(session: Session, file_id: str, *, project_id: str) -> Sequence[object]:
    query = sa.select(File.created_at, File.id)
    place = session.execute(
        query.where(File.id == file_id, File.project_id == project_id)
    ).one_or_none()
    if place is None:
        raise NotFound(f"no file {file_id!r} in this project to list after", param="after")
    return place
