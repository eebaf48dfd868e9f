"""The audit trail: written with what it is about where that is one transaction."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.audit import Entry
from jobs.tables import AuditEntry

BATCH = 10_000


def record(session: Session, entry: Entry) -> None:
    """Write an entry."""
    session.execute(sa.insert(AuditEntry).values(**asdict(entry)))


def prune(session: Session, *, kept: timedelta) -> int:
    """Remove a batch of the entries that are older; how many."""
    old = (
        sa.select(AuditEntry.id)
        .where(AuditEntry.at < sa.func.now() - kept)
        .order_by(AuditEntry.at)
        .limit(BATCH)
    )
    removed = session.execute(
        sa.delete(AuditEntry).where(AuditEntry.id.in_(old)).returning(AuditEntry.id)
    )
    return len(removed.all())
