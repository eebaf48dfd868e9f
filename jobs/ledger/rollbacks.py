"""Rollbacks: an alias goes back to what it pointed to before, in one transaction."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.decisions import alias_history
from jobs.decisions.alias_history import AliasChange, Move
from jobs.errors import Conflict
from jobs.ledger import registry
from jobs.lookups import registry as lookup
from jobs.tables import AliasMove, ModelVersion


@dataclass(frozen=True)
class Rollback:
    """Where an alias points now, where it pointed before, and what it passed over."""

    version: int
    previous: int | None  # null: the alias pointed nowhere
    skipped: tuple[int, ...] = ()  # nearer versions, which were deleted


def roll_back(
    session: Session, *, project_id: str, name: str, alias: str, expected: int | None = None
) -> Rollback:
    """Let the alias point to what it pointed to before, passing over deleted versions.

    ``expected``: the version that it points to, as far as the caller knows. A repeated call with
    the same one is one rollback. Raises ``NotFound``, and ``Conflict`` where the alias has moved
    or there is nothing to go back to.
    """
    registry.locked(session, name, project_id=project_id)
    moves = _moves(session, project_id=project_id, name=name, alias=alias)
    current = registry.pointed_to(session, project_id=project_id, name=name, alias=alias)
    if current is None and not moves:
        lookup.alias(session, name, alias, project_id=project_id)  # raises, and names those known
    if expected is not None and current != expected:
        return _done_before(moves, current, expected, place=f"{name}@{alias}")
    found = alias_history.earlier([Move(move.how, move.version) for move in moves], current=current)
    usable = _usable(session, found, project_id=project_id, name=name)
    if not usable:
        raise Conflict(_nothing(name, alias, current, found), code="nothing_to_roll_back_to")
    target = next(version for version in found if version in usable)
    registry.move_alias(
        session,
        project_id=project_id,
        name=name,
        alias=alias,
        version=target,
        how=AliasChange.ROLLBACK,
    )
    return Rollback(target, current, tuple(dict.fromkeys(found[: found.index(target)])))


def _moves(session: Session, *, project_id: str, name: str, alias: str) -> list[AliasMove]:
    query = sa.select(AliasMove).where(
        AliasMove.project_id == project_id, AliasMove.name == name, AliasMove.alias == alias
    )
    return list(session.scalars(query.order_by(AliasMove.id)))


def _done_before(
    moves: list[AliasMove], current: int | None, expected: int, *, place: str
) -> Rollback:
    """The rollback that an earlier call has done. Raises ``Conflict`` if it was none."""
    last = moves[-1] if moves else None
    if (
        current is not None
        and last is not None
        and last.how is AliasChange.ROLLBACK
        and (last.previous, last.version) == (expected, current)
    ):
        return Rollback(current, expected)
    where = "nowhere" if current is None else f"to version {current}"
    raise Conflict(
        f"{place} points {where}, not to version {expected}: it has moved meanwhile; look at its "
        "history, then roll back again",
        code="alias_moved",
    )


def _usable(session: Session, versions: list[int], *, project_id: str, name: str) -> set[int]:
    """Those that are not deleted; none of them is before this transaction ends."""
    query = (
        sa.select(ModelVersion.version)
        .where(
            ModelVersion.project_id == project_id,
            ModelVersion.name == name,
            ModelVersion.version.in_(versions),
            ModelVersion.deleted_at.is_(None),
        )
        .with_for_update(read=True)
    )
    return set(session.scalars(query))


def _nothing(name: str, alias: str, current: int | None, found: list[int]) -> str:
    """Why there is nothing to go back to."""
    now = "points nowhere" if current is None else f"points to {name}@{current}"
    if not found:
        return f"{name}@{alias} {now}, and pointed to no other version before"
    gone = ", ".join(f"{name}@{version}" for version in dict.fromkeys(found))
    return f"{name}@{alias} {now}, and every version that it pointed to before is deleted: {gone}"
