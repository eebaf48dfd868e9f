"""Keys as the administrators of their project see them: never the key, nor its hash."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs import ids
from jobs.errors import NotFound
from jobs.lookups import clock
from jobs.queries import paging
from jobs.queries.paging import Order
from jobs.rights import Rights, Scope
from jobs.tables import ApiKey


class KeyState(StrEnum):
    """Whether a key opens anything."""

    ACTIVE = "active"
    REPLACED = "replaced"  # by a rotation: valid until it expires
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True)
class KeyView:
    """A key at one moment."""

    key: ApiKey
    now: datetime

    @property
    def state(self) -> KeyState:
        """What ends it comes before what will."""
        if self.key.revoked_at is not None:
            return KeyState.REVOKED
        if self.key.expires_at is not None and self.key.expires_at <= self.now:
            return KeyState.EXPIRED
        return KeyState.ACTIVE if self.key.replaced_by is None else KeyState.REPLACED

    @property
    def replaced_by(self) -> str | None:
        """The id of the key that its rotation made."""
        return None if self.key.replaced_by is None else ids.of_key(self.key.replaced_by)


def get(session: Session, key_id: str, *, by: Rights) -> KeyView:
    """The key. Raises ``NotFound``, for another project's too unless the caller operates."""
    query = sa.select(ApiKey).where(ApiKey.id == key_id)
    if Scope.OPERATE not in by.scopes:
        query = query.where(ApiKey.project_id == by.project_id)
    found = session.scalar(query.execution_options(populate_existing=True))
    if found is None:
        raise NotFound(f"no key {key_id!r} in this project")
    return KeyView(found, clock.now(session))


def page(
    session: Session, *, project_id: str, limit: int, after: str | None, order: Order
) -> tuple[list[KeyView], bool]:
    """Keys of a project by age, those that have ended too; and whether there are more."""
    place = None if after is None else _place(session, after, project_id=project_id)
    query = sa.select(ApiKey).where(ApiKey.project_id == project_id)
    query = paging.sort(query, ApiKey.created_at, ApiKey.id, order=order, after=place)
    found, more = paging.page(session, query, limit=limit)
    now = clock.now(session)
    return [KeyView(each, now) for each in found], more


def _place(session: Session, key_id: str, *, project_id: str) -> Sequence[object]:
    place = session.execute(
        sa.select(ApiKey.created_at, ApiKey.id).where(
            ApiKey.id == key_id, ApiKey.project_id == project_id
        )
    ).one_or_none()
    if place is None:
        raise NotFound(f"no key {key_id!r} in this project to list after", param="after")
    return place
