"""Rounds of the garbage collector: which process is at one, and what it has measured.

Two rounds at a time would do no harm; one is enough. A round whose process died is left when its
lease has run out, and the next one begins from the beginning.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from jobs.tables import CollectionRound, StorageUsage

ONLY = 1


def claim(session: Session, *, interval: timedelta, duration: timedelta) -> int | None:
    """The fence of a round that this process begins; ``None``: none is due, or one is under way."""
    _make(session)
    free = sa.or_(
        CollectionRound.leased_until.is_(None),
        CollectionRound.leased_until < sa.func.now(),
    )
    return session.scalar(
        sa.update(CollectionRound)
        .where(
            CollectionRound.id == ONLY, CollectionRound.ended_at <= sa.func.now() - interval, free
        )
        .values(fence=CollectionRound.fence + 1, leased_until=sa.func.now() + duration)
        .returning(CollectionRound.fence)
    )


def renew(session: Session, fence: int, *, duration: timedelta) -> bool:
    """Keep the round; ``False``: another process has it."""
    renewed = session.scalar(
        sa.update(CollectionRound)
        .where(CollectionRound.id == ONLY, CollectionRound.fence == fence)
        .values(leased_until=sa.func.now() + duration)
        .returning(CollectionRound.id)
    )
    return renewed is not None


def end(session: Session, fence: int) -> None:
    """The round has ended, well or not: the next one is due an interval later."""
    session.execute(
        sa.update(CollectionRound)
        .where(CollectionRound.id == ONLY, CollectionRound.fence == fence)
        .values(leased_until=None, ended_at=sa.func.now())
    )


def record_usage(
    session: Session, usage: Mapping[tuple[str, str], tuple[int, int]], *, measured_at: datetime
) -> None:
    """Replace what was measured: objects and bytes by project and kind."""
    _make(session)
    newer = sa.select(CollectionRound.id).where(CollectionRound.measured_at > measured_at)
    if session.scalar(newer) is not None:
        return
    session.execute(
        sa.update(CollectionRound).where(CollectionRound.id == ONLY).values(measured_at=measured_at)
    )
    session.execute(sa.delete(StorageUsage))
    rows = [
        {"project_id": project_id, "kind": kind, "objects": objects, "bytes": size}
        for (project_id, kind), (objects, size) in sorted(usage.items())
    ]
    if rows:
        session.execute(insert(StorageUsage), rows)


def _make(session: Session) -> None:
    session.execute(insert(CollectionRound).values(id=ONLY).on_conflict_do_nothing())
