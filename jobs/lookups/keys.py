"""Which keys are valid, for the ledger and the queries."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.rights import Scope
from jobs.tables import ApiKey


def valid() -> sa.ColumnElement[bool]:
    """The key is neither revoked nor expired, by the clock of the database."""
    return sa.and_(
        ApiKey.revoked_at.is_(None),
        sa.or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > sa.func.now()),
    )


def has(scope: Scope) -> sa.ColumnElement[bool]:
    """The key has the scope."""
    return sa.literal(scope.value) == sa.any_(ApiKey.scopes)


def still_may(session: Session, sha256: str, *, project_id: str, scope: Scope) -> bool:
    """Whether the key, or one by which rotations have replaced it, is valid and has the scope."""
    line = (
        sa.select(ApiKey.sha256, ApiKey.replaced_by)
        .where(ApiKey.sha256 == sha256, ApiKey.project_id == project_id)
        .cte("line", recursive=True)
    )
    successor = sa.select(ApiKey.sha256, ApiKey.replaced_by).join(
        line, ApiKey.sha256 == line.c.replaced_by
    )
    line = line.union(successor)
    found = session.scalar(
        sa.select(ApiKey.sha256)
        .join(line, ApiKey.sha256 == line.c.sha256)
        .where(valid(), has(scope))
        .limit(1)
    )
    return found is not None
