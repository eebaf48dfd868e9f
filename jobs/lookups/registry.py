"""Which version of a registered model a reference names."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.errors import NotFound
from jobs.models.references import Registered
from jobs.tables import Model, ModelAlias, ModelVersion


def version(session: Session, name: Registered, *, project_id: str) -> ModelVersion:
    """The version that a reference names. Raises ``NotFound``, for another project's too."""
    number = _number(session, name, project_id=project_id)
    row = session.get(ModelVersion, (project_id, name.name, number))
    if row is None or row.deleted_at is not None:
        raise NotFound(
            f"{name.name}@{number} was deleted"
            if row
            else f"the model {name.name!r} has no version {number}",
            code="model_not_found",
        )
    return row


def alias(session: Session, name: str, alias: str, *, project_id: str) -> ModelAlias:
    """Where an alias points. Raises ``NotFound``."""
    check_name(session, name, project_id=project_id)
    row = session.get(ModelAlias, (project_id, name, alias))
    if row is None:
        raise _no_alias(session, name, alias, project_id=project_id)
    return row


def check_name(session: Session, name: str, *, project_id: str) -> None:
    """Raise ``NotFound`` for a name that the project's registry does not have."""
    if session.get(Model, (project_id, name)) is None:
        raise NotFound(f"no model {name!r} in this project's registry", code="model_not_found")


def _number(session: Session, name: Registered, *, project_id: str) -> int:
    if name.version is not None:
        check_name(session, name.name, project_id=project_id)
        return name.version
    if name.alias is not None:
        return alias(session, name.name, name.alias, project_id=project_id).version
    return _newest(session, name.name, project_id=project_id)


def _newest(session: Session, name: str, *, project_id: str) -> int:
    check_name(session, name, project_id=project_id)
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
