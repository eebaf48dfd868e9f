"""Versions that lost: all but the newest are deleted, where a fine-tune asks for that."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.errors import Conflict
from jobs.ledger import registry
from jobs.lookups import clock
from jobs.tables import AliasMove, ModelVersion, Promotion


def delete(
    session: Session,
    *,
    project_id: str,
    name: str,
    alias: str,
    keep: int | None,
    keep_for: timedelta | None,
) -> list[int]:
    """Make tombstones of the versions that the alias did not move to; their numbers.

    Kept are the newest ``keep`` of them, and those younger than ``keep_for``; a version to which
    any alias has ever pointed, and one that a job or an adapter uses. The purger removes the
    objects.
    """
    registry.locked(session, name, project_id=project_id)
    rejected = _rejected(session, project_id=project_id, name=name, alias=alias)
    older = rejected[keep or 0 :]
    if keep_for is not None:
        limit = clock.now(session) - keep_for
        older = [version for version in older if version.created_at < limit]
    return [version.version for version in older if _deleted(session, version)]


def _rejected(
    session: Session, *, project_id: str, name: str, alias: str
) -> Sequence[ModelVersion]:
    """The newest first."""

    def of_version(table: type[Promotion | AliasMove]) -> sa.ColumnElement[bool]:
        return sa.and_(
            table.project_id == ModelVersion.project_id,
            table.name == ModelVersion.name,
            table.version == ModelVersion.version,
        )

    lost = sa.select(Promotion.id).where(
        of_version(Promotion), Promotion.alias == alias, ~Promotion.promoted
    )
    served = sa.select(AliasMove.id).where(of_version(AliasMove))
    return session.scalars(
        sa.select(ModelVersion)
        .where(
            ModelVersion.project_id == project_id,
            ModelVersion.name == name,
            ModelVersion.deleted_at.is_(None),
            lost.exists(),
            ~served.exists(),
        )
        .order_by(ModelVersion.version.desc())
        .with_for_update()
    ).all()


def _deleted(session: Session, version: ModelVersion) -> bool:
    """Whether the locked version was deleted; nothing must use it."""
    try:
        registry.check_unused(session, version)
    except Conflict:
        return False
    registry.bury(session, version)
    return True
