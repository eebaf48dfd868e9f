"""The model registry as its owners see it: names, versions, aliases, promotions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.errors import NotFound
from jobs.lookups import registry
from jobs.models.references import Registered
from jobs.queries import paging
from jobs.queries.paging import Order
from jobs.tables import AliasMove, ModelAlias, ModelVersion, Promotion


@dataclass(frozen=True)
class VersionView:
    """A version with the aliases that point to it."""

    version: ModelVersion
    aliases: tuple[str, ...]


def view(session: Session, name: Registered, *, project_id: str) -> VersionView:
    """The version that a reference means, with its aliases. Raises ``NotFound``."""
    found = registry.version(session, name, project_id=project_id)
    return _views(session, [found], project_id=project_id)[0]


def models(session: Session, *, project_id: str) -> list[VersionView]:
    """Every version that is not deleted, by name, newest first."""
    query = (
        sa.select(ModelVersion)
        .where(ModelVersion.project_id == project_id, ModelVersion.deleted_at.is_(None))
        .order_by(ModelVersion.name, ModelVersion.version.desc())
    )
    return _views(session, session.scalars(query).all(), project_id=project_id)


def versions(
    session: Session,
    name: str,
    *,
    project_id: str,
    limit: int,
    after: int | None = None,
    order: Order = Order.DESC,
) -> tuple[list[VersionView], bool]:
    """One name's versions by number, deleted ones too, beginning behind the number ``after``.

    And whether there are more. Raises ``NotFound``.
    """
    registry.check_name(session, name, project_id=project_id)
    query = sa.select(ModelVersion).where(
        ModelVersion.project_id == project_id, ModelVersion.name == name
    )
    query = paging.sort(query, ModelVersion.version, order=order, after=_place(after))
    rows, more = paging.page(session, query, limit=limit)
    return _views(session, rows, project_id=project_id), more


def promotions(
    session: Session,
    name: str,
    *,
    project_id: str,
    limit: int,
    after: int | None = None,
    order: Order = Order.DESC,
) -> tuple[list[Promotion], bool]:
    """Decisions about a name's aliases by age, beginning behind the id ``after``.

    And whether there are more. Raises ``NotFound``.
    """
    registry.check_name(session, name, project_id=project_id)
    query = sa.select(Promotion).where(Promotion.project_id == project_id, Promotion.name == name)
    query = paging.sort(query, Promotion.id, order=order, after=_place(after))
    return paging.page(session, query, limit=limit)


def promotion(session: Session, name: str, decision_id: int, *, project_id: str) -> Promotion:
    """One decision. Raises ``NotFound``."""
    registry.check_name(session, name, project_id=project_id)
    found = session.scalar(
        sa.select(Promotion).where(
            Promotion.id == decision_id,
            Promotion.project_id == project_id,
            Promotion.name == name,
        )
    )
    if found is None:
        raise NotFound(f"the model {name!r} has no decision {decision_id} about a promotion")
    return found


@dataclass(frozen=True)
class Service:
    """A move of an alias, and until when it was true."""

    move: AliasMove
    until: datetime | None  # null: it is true now


def history(
    session: Session,
    name: str,
    alias: str,
    *,
    project_id: str,
    limit: int,
    after: int | None = None,
    order: Order = Order.DESC,
) -> tuple[list[Service], bool]:
    """What an alias pointed to, by age, beginning behind the id ``after``; and whether more.

    Raises ``NotFound`` for a name that is not there, or an alias that it never had.
    """
    registry.check_name(session, name, project_id=project_id)
    of_alias = (
        AliasMove.project_id == project_id,
        AliasMove.name == name,
        AliasMove.alias == alias,
    )
    query = paging.sort(
        sa.select(AliasMove).where(*of_alias), AliasMove.id, order=order, after=_place(after)
    )
    found, more = paging.page(session, query, limit=limit)
    if not found and after is None:
        registry.alias(session, name, alias, project_id=project_id)
    following = sa.func.lead(AliasMove.at).over(order_by=AliasMove.id).label("until")
    rows = session.execute(
        sa.select(AliasMove.id, following)
        .where(*of_alias)
        .where(AliasMove.id >= min((move.id for move in found), default=0))
    )
    until: dict[int, datetime | None] = {row.id: row.until for row in rows}
    return [Service(move, until[move.id]) for move in found], more


def _place(number: int | None) -> tuple[int] | None:
    return None if number is None else (number,)


def _views(
    session: Session, found: Sequence[ModelVersion], *, project_id: str
) -> list[VersionView]:
    aliases: dict[tuple[str, int], list[str]] = {}
    names = {version.name for version in found}
    query = (
        sa.select(ModelAlias)
        .where(ModelAlias.project_id == project_id, ModelAlias.name.in_(names))
        .order_by(ModelAlias.alias)
    )
    for each in session.scalars(query):
        aliases.setdefault((each.name, each.version), []).append(each.alias)
    return [
        VersionView(version, tuple(aliases.get((version.name, version.version), ())))
        for version in found
    ]
