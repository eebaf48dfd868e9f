"""Projects as operators see them, and each to those whose keys act for it."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs import rights
from jobs.queries import paging
from jobs.queries.paging import Order
from jobs.tables import Project


def get(session: Session, project_id: str) -> Project:
    """The project. Raises ``NotFound``."""
    found = session.scalar(
        sa.select(Project).where(Project.id == project_id).execution_options(populate_existing=True)
    )
    if found is None:
        raise rights.no_project(project_id)
    return found


def page(
    session: Session, *, limit: int, after: str | None, order: Order
) -> tuple[list[Project], bool]:
    """Projects by id, beginning behind ``after``; and whether there are more."""
    place = None if after is None else (after,)
    query = paging.sort(sa.select(Project), Project.id, order=order, after=place)
    return paging.page(session, query, limit=limit)
