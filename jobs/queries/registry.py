"""The model registry as its owners see it: names, versions, aliases, promotions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.errors import NotFound
from jobs.models.references import Registered
from jobs.tables import Model, ModelAlias, ModelVersion, Promotion


@dataclass(frozen=True)
class VersionView:
    """A version with the aliases that point to it."""

    version: ModelVersion
    aliases: tuple[str, ...]


def version(session: Session, name: Registered, *, project_id: str) -> ModelVersion:
    """The version that a reference means. Raises ``NotFound``, for another project's too."""
    number = _number(session, name, project_id=project_id)
    found = session.get(ModelVersion, (project_id, name.name, number))
    if found is None or found.deleted_at is not None:
        raise NotFound(
            f"{name.name}@{number} was deleted"
            if found
            else f"the model {name.name!r} has no version {number}",
            code="model_not_found",
        )
    return found


def view(session: Session, name: Registered, *, project_id: str) -> VersionView:
    """The version that a reference means, with its aliases. Raises ``NotFound``."""
    found = version(session, name, project_id=project_id)
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
    session: Session, name: str, *, project_id: str, limit: int, after: int | None = None
) -> tuple[list[VersionView], bool]:
    """One name's versions, newest first, deleted ones too, beginning below the number ``after``.

    And whether there are more. Raises ``NotFound``.
    """
    _check_name(session, name, project_id=project_id)
    query = sa.select(ModelVersion).where(
        ModelVersion.project_id == project_id, ModelVersion.name == name
    )
    if after is not None:
        query = query.where(ModelVersion.version < after)
    found = session.scalars(query.order_by(ModelVersion.version.desc()).limit(limit + 1)).all()
    return _views(session, found[:limit], project_id=project_id), len(found) > limit


def alias(session: Session, name: str, alias: str, *, project_id: str) -> ModelAlias:
    """Where an alias points. Raises ``NotFound``."""
    _check_name(session, name, project_id=project_id)
    found = session.get(ModelAlias, (project_id, name, alias))
    if found is None:
        raise _no_alias(session, name, alias, project_id=project_id)
    return found


def other_task(session: Session, name: str, *, task: str, project_id: str) -> str | None:
    """Why the name cannot have a version of this task, in words; ``None``: it can.

    A name has one task, so that whoever uses an alias of it gets what they expect.
    """
    found = session.scalars(
        sa.select(ModelVersion.task)
        .where(
            ModelVersion.project_id == project_id,
            ModelVersion.name == name,
            ModelVersion.deleted_at.is_(None),
        )
        .distinct()
        .order_by(ModelVersion.task)
    ).all()
    if not found or task in found:
        return None
    return (
        f"the model {name!r} has versions for {' and '.join(found)}, and a name has one task: "
        f"register this one, for {task}, under another name"
    )


def promotions(
    session: Session, name: str, *, project_id: str, limit: int, after: int | None = None
) -> tuple[list[Promotion], bool]:
    """Decisions about a name's aliases, newest first, beginning below the id ``after``.

    And whether there are more. Raises ``NotFound``.
    """
    _check_name(session, name, project_id=project_id)
    query = sa.select(Promotion).where(Promotion.project_id == project_id, Promotion.name == name)
    if after is not None:
        query = query.where(Promotion.id < after)
    found = session.scalars(query.order_by(Promotion.id.desc()).limit(limit + 1)).all()
    return list(found[:limit]), len(found) > limit


def _number(session: Session, name: Registered, *, project_id: str) -> int:
    if name.version is not None:
        _check_name(session, name.name, project_id=project_id)
        return name.version
    if name.alias is not None:
        return alias(session, name.name, name.alias, project_id=project_id).version
    return _newest(session, name.name, project_id=project_id)


def _newest(session: Session, name: str, *, project_id: str) -> int:
    _check_name(session, name, project_id=project_id)
    newest = session.scalar(
        sa.select(sa.func.max(ModelVersion.version)).where(
            ModelVersion.project_id == project_id,
            ModelVersion.name == name,
            ModelVersion.deleted_at.is_(None),
        )
    )
    if newest is None:
        raise NotFound(f"every version of the model {name!r} was deleted", code="model_not_found")
    return newest


def _check_name(session: Session, name: str, *, project_id: str) -> None:
    if session.get(Model, (project_id, name)) is None:
        raise NotFound(f"no model {name!r} in this project's registry", code="model_not_found")


def _no_alias(session: Session, name: str, alias: str, *, project_id: str) -> NotFound:
    known = session.scalars(
        sa.select(ModelAlias.alias)
        .where(ModelAlias.project_id == project_id, ModelAlias.name == name)
        .order_by(ModelAlias.alias)
    )
    return NotFound(
        f"the model {name!r} has no alias {alias!r}; it has {', '.join(known) or 'none'}",
        code="model_not_found",
    )


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
