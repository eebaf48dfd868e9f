"""Keys: create, rotate, revoke; whose a key is, and when it was used last.

A key is random, so that one pass of SHA-256 is enough: there is nothing to guess (docs/decisions).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs import ids, rights, tenancy
from jobs.errors import Conflict, NotFound, Unauthorized
from jobs.lookups import clock
from jobs.lookups import keys as lookup
from jobs.rights import Rights, Scope
from jobs.tables import ApiKey, Project
from jobs.tenancy import KeyRequest, KeyRotation

USE_IS_NOTED_EVERY = timedelta(minutes=1)


class Made(NamedTuple):
    """A new key: its text, which nothing keeps, and its id."""

    text: str
    key_id: str


def create(session: Session, request: KeyRequest, *, by: Rights) -> Made:
    """Raises ``Forbidden``, ``NotFound`` for a project, and ``Conflict`` where it has too many."""
    project_id = by.project(request.project)
    by.check_grant(request.scopes)
    _lock_project(session, project_id)
    _check_room(session, project_id)
    life = request.expires_in
    return _insert(
        session,
        project_id=project_id,
        name=request.name,
        scopes=request.scopes,
        expires_at=None if life is None else clock.now(session) + life,
        by=by,
    )


def rotate(session: Session, key_id: str, rotation: KeyRotation, *, by: Rights) -> Made:
    """Make a key that replaces this one, which stays valid for the overlap.

    What schedules of the old key submit goes on with the rights of the new one. Raises
    ``Forbidden``, ``NotFound``, and ``Conflict`` for a key that is not valid or was replaced.
    """
    old = _locked(session, key_id, by=by)
    by.check_grant(Scope(each) for each in old.scopes)
    now = clock.now(session)
    _check_rotatable(old, now=now)
    _lock_project(session, old.project_id)
    _check_room(session, old.project_id)
    life = rotation.expires_in
    if life is None and old.expires_at is not None:
        life = old.expires_at - old.created_at
    made = _insert(
        session,
        project_id=old.project_id,
        name=old.name,
        scopes=[Scope(each) for each in old.scopes],
        expires_at=None if life is None else now + life,
        by=by,
    )
    until = now + rotation.overlap
    old.replaced_by = key_hash(made.text)
    old.expires_at = until if old.expires_at is None else min(old.expires_at, until)
    session.flush()
    return made


def revoke(session: Session, key_id: str, *, by: Rights) -> None:
    """End the key for good; harmless on one that is revoked. Raises ``NotFound``."""
    key = _locked(session, key_id, by=by)
    if key.revoked_at is None:
        key.revoked_at = clock.now(session)
        session.flush()


def authenticate(session: Session, *, key: str) -> Rights:
    """What the key may do; its use is noted. Raises ``Unauthorized``."""
    return of_hash(session, key_hash(key))


def of_hash(session: Session, sha256: str) -> Rights:
    """What the key of this hash may do; its use is noted. Raises ``Unauthorized``."""
    noted = ApiKey.last_used_at > sa.func.now() - USE_IS_NOTED_EVERY
    found = session.execute(
        sa.select(
            ApiKey.project_id, ApiKey.id, ApiKey.scopes, sa.func.coalesce(noted, sa.false())
        ).where(ApiKey.sha256 == sha256, lookup.valid())
    ).one_or_none()
    if found is None:
        raise Unauthorized("this API key is not known here; `nightshift up` prints a valid one")
    project_id, key_id, scopes, is_noted = found
    if not is_noted:
        _note_use(session, sha256)
    return Rights(project_id, key_id, frozenset(map(Scope, scopes)))


def valid_hashes(session: Session, *, project_id: str) -> Sequence[str]:
    """The hashes of the project's valid keys that may read, as ``key_hash`` makes them."""
    return session.scalars(
        sa.select(ApiKey.sha256).where(
            ApiKey.project_id == project_id,
            lookup.has(Scope.READ),
            lookup.valid(),
        )
    ).all()


def key_hash(key: str) -> str:
    """What is kept of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def _insert(
    session: Session,
    *,
    project_id: str,
    name: str,
    scopes: Sequence[Scope],
    expires_at: datetime | None,
    by: Rights,
) -> Made:
    text = ids.key()
    made = ApiKey(
        sha256=key_hash(text),
        project_id=project_id,
        name=name,
        hint=text[: tenancy.HINT],
        scopes=[scope.value for scope in scopes],
        created_by=by.key_id,
        expires_at=expires_at,
    )
    session.add(made)
    session.flush()
    return Made(text, made.id)


def _note_use(session: Session, sha256: str) -> None:
    """Passed over where another process notes it, or somebody changes the key."""
    free = (
        sa.select(ApiKey.sha256)
        .where(ApiKey.sha256 == sha256)
        .with_for_update(key_share=True, skip_locked=True)
        .scalar_subquery()
    )
    session.execute(
        sa.update(ApiKey).where(ApiKey.sha256 == free).values(last_used_at=sa.func.now())
    )


def _locked(session: Session, key_id: str, *, by: Rights) -> ApiKey:
    """The key under its lock. Raises ``NotFound``, for another project's too."""
    query = sa.select(ApiKey).where(ApiKey.id == key_id)
    if Scope.OPERATE not in by.scopes:
        query = query.where(ApiKey.project_id == by.project_id)
    key = session.scalar(
        query.with_for_update(key_share=True).execution_options(populate_existing=True)
    )
    if key is None:
        raise NotFound(f"no key {key_id!r} in this project")
    return key


def _lock_project(session: Session, project_id: str) -> None:
    """So that those who make keys at once count one another's. Raises ``NotFound``."""
    found = session.scalar(
        sa.select(Project.id).where(Project.id == project_id).with_for_update(key_share=True)
    )
    if found is None:
        raise rights.no_project(project_id)


def _check_room(session: Session, project_id: str) -> None:
    count = session.scalar(
        sa.select(sa.func.count())
        .select_from(ApiKey)
        .where(ApiKey.project_id == project_id, lookup.valid())
    )
    if (count or 0) >= tenancy.MOST_KEYS:
        raise Conflict(
            f"a project has at most {tenancy.MOST_KEYS} valid keys: revoke one",
            code="too_many_keys",
        )


def _check_rotatable(key: ApiKey, *, now: datetime) -> None:
    if key.revoked_at is not None or (key.expires_at is not None and key.expires_at <= now):
        raise Conflict(f"{key.id} is not valid any more: create a key", code="key_not_valid")
    if key.replaced_by is not None:
        raise Conflict(
            f"{key.id} was rotated already: rotate the key that replaced it", code="key_replaced"
        )
