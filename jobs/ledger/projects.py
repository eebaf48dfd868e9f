"""Projects and their keys."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from jobs.errors import Conflict, Unauthorized
from jobs.tables import ApiKey, Project


def ensure_key(session: Session, *, project_id: str, key: str) -> None:
    """Make the key valid for the project; both are created where missing.

    A key that acts for another project stays there: raises ``Conflict``.
    """
    session.execute(insert(Project).values(id=project_id).on_conflict_do_nothing())
    ours = session.scalar(
        insert(ApiKey)
        .values(sha256=key_hash(key), project_id=project_id)
        .on_conflict_do_update(
            index_elements=[ApiKey.sha256],
            set_={"revoked_at": None},
            where=ApiKey.project_id == project_id,
        )
        .returning(ApiKey.project_id)
    )
    if ours is None:
        raise Conflict("this key acts for another project; make a new one", code="key_in_use")


def authenticate(session: Session, *, key: str) -> str:
    """The project that the key acts for. Raises ``Unauthorized``."""
    project_id = session.scalar(
        sa.select(ApiKey.project_id).where(
            ApiKey.sha256 == key_hash(key), ApiKey.revoked_at.is_(None)
        )
    )
    if project_id is None:
        raise Unauthorized("this API key is not known here; `nightshift up` prints a valid one")
    return project_id


def key_hashes(session: Session, *, project_id: str) -> Sequence[str]:
    """The hashes of the project's valid keys, as ``key_hash`` makes them."""
    return session.scalars(
        sa.select(ApiKey.sha256).where(ApiKey.project_id == project_id, ApiKey.revoked_at.is_(None))
    ).all()


def key_hash(key: str) -> str:
    """What is kept of a key."""
    return hashlib.sha256(key.encode()).hexdigest()
