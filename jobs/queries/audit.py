"""The audit trail of a project."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.queries import paging
from jobs.queries.paging import Order
from jobs.tables import AuditEntry


@dataclass(frozen=True)
class AuditFilter:
    """Which entries; ``None``: all."""

    key_id: str | None = None
    object: str | None = None
    since: datetime | None = None
    until: datetime | None = None


def page(
    session: Session,
    *,
    project_id: str,
    wanted: AuditFilter,
    limit: int,
    after: int | None,
    order: Order,
) -> tuple[list[AuditEntry], bool]:
    """Entries by age, beginning behind the entry ``after``; and whether there are more."""
    query = sa.select(AuditEntry).where(AuditEntry.project_id == project_id)
    if wanted.key_id is not None:
        query = query.where(AuditEntry.key_id == wanted.key_id)
    if wanted.object is not None:
        query = query.where(AuditEntry.object == wanted.object)
    if wanted.since is not None:
        query = query.where(AuditEntry.at >= wanted.since)
    if wanted.until is not None:
        query = query.where(AuditEntry.at < wanted.until)
    place = None if after is None else (after,)
    query = paging.sort(query, AuditEntry.id, order=order, after=place)
    return paging.page(session, query, limit=limit)
