"""Uploads under way: each has a lease, so that what a killed process left of one is removed.

The process that receives an upload holds its first fence. Where its lease runs out, any API process
claims the upload with a higher fence, removes what lies in the object store, and forgets it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.errors import StorageAway
from jobs.tables import UnfinishedUpload

RECEIVER = 1
"""The fence of the process that receives the upload."""


@dataclass(frozen=True)
class Remainder:
    """An upload that its process has left, claimed to be removed."""

    file_id: str
    object_key: str
    fence: int


def begin(
    session: Session, *, file_id: str, project_id: str, object_key: str, duration: timedelta
) -> None:
    """Record an upload before its first byte is stored."""
    session.add(
        UnfinishedUpload(
            id=file_id,
            project_id=project_id,
            object_key=object_key,
            lease_expires_at=sa.func.now() + duration,
        )
    )


def renew(session: Session, file_ids: Collection[str], *, duration: timedelta) -> None:
    """Keep the leases of uploads that this process receives."""
    session.execute(
        sa.update(UnfinishedUpload)
        .where(UnfinishedUpload.id.in_(file_ids), UnfinishedUpload.fence == RECEIVER)
        .values(lease_expires_at=sa.func.now() + duration)
    )


def complete(session: Session, file_id: str) -> None:
    """Forget an upload whose object is complete, in the transaction that records the file.

    Raises ``StorageAway`` where the lease was lost: the object may have been removed.
    """
    if not _forget(session, file_id, fence=RECEIVER):
        raise StorageAway("the upload took part in an outage and is lost; send it again")


def abort(session: Session, file_id: str, *, fence: int = RECEIVER) -> None:
    """Forget an upload of which nothing is left in the object store."""
    _forget(session, file_id, fence=fence)


def claim_remainders(session: Session, *, duration: timedelta, limit: int) -> list[Remainder]:
    """Uploads whose lease has run out, for this process to remove."""
    expired = (
        sa.select(UnfinishedUpload.id)
        .where(UnfinishedUpload.lease_expires_at < sa.func.now())
        .order_by(UnfinishedUpload.lease_expires_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    claimed = session.execute(
        sa.update(UnfinishedUpload)
        .where(UnfinishedUpload.id.in_(expired.scalar_subquery()))
        .values(fence=UnfinishedUpload.fence + 1, lease_expires_at=sa.func.now() + duration)
        .returning(UnfinishedUpload.id, UnfinishedUpload.object_key, UnfinishedUpload.fence)
    )
    return [Remainder(*row) for row in claimed]


def _forget(session: Session, file_id: str, *, fence: int) -> bool:
    gone = session.scalar(
        sa.delete(UnfinishedUpload)
        .where(UnfinishedUpload.id == file_id, UnfinishedUpload.fence == fence)
        .returning(UnfinishedUpload.id)
    )
    return gone is not None
