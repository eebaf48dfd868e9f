"""Projects, and the keys that an operator of the database makes valid for them."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from jobs import rights
from jobs.errors import Conflict
from jobs.ledger import keys
from jobs.lookups import keys as lookup
from jobs.rights import ALL_SCOPES, Scope
from jobs.tables import ApiKey, Json, Project
from jobs.tenancy import Limits, ProjectChange, ProjectRequest


def create(session: Session, request: ProjectRequest) -> None:
    """Raises ``Conflict`` for an id that is taken."""
    made = session.scalar(
        insert(Project)
        .values(
            id=request.id,
            name=request.name,
            weight=request.weight,
            limits=_stored(request.limits),
        )
        .on_conflict_do_nothing()
        .returning(Project.id)
    )
    if made is None:
        raise Conflict(f"there is a project {request.id} already", code="project_exists")


def change(session: Session, project_id: str, given: ProjectChange) -> None:
    """Change what is given. Raises ``NotFound``."""
    project = session.scalar(
        sa.select(Project).where(Project.id == project_id).with_for_update(key_share=True)
    )
    if project is None:
        raise rights.no_project(project_id)
    if given.name is not None:
        project.name = given.name
    if given.weight is not None:
        project.weight = given.weight
    if given.limits is not None:
        project.limits = _stored(given.limits)
    session.flush()


def ensure_key(
    session: Session, *, project_id: str, key: str, scopes: Sequence[Scope] = ALL_SCOPES
) -> bool:
    """Let the key act for the project, with these scopes; both are created where missing.

    ``False``: the key was revoked or has expired, and stays so. A key that acts for another project
    stays there: raises ``Conflict``.
    """
    session.execute(insert(Project).values(id=project_id).on_conflict_do_nothing())
    given = [scope.value for scope in scopes]
    ours = session.scalar(
        insert(ApiKey)
        .values(sha256=keys.key_hash(key), project_id=project_id, scopes=given)
        .on_conflict_do_update(
            index_elements=[ApiKey.sha256],
            set_={"scopes": given},
            where=ApiKey.project_id == project_id,
        )
        .returning(lookup.valid())
    )
    if ours is None:
        raise Conflict("this key acts for another project; make a new one", code="key_in_use")
    return bool(ours)


def _stored(limits: Limits) -> Json | None:
    return limits.model_dump(mode="json", exclude_none=True) or None
