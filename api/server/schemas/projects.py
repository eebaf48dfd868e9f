"""What the API answers about projects and keys."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, Self

from pydantic import BaseModel

from jobs import tables
from jobs.queries.keys import KeyState, KeyView
from jobs.rights import Rights, Scope
from jobs.tenancy import Limits


class Project(BaseModel):
    """A tenant of the installation."""

    id: str
    object: Literal["project"] = "project"
    name: str
    weight: float  # its share of a busy pool
    limits: Limits
    created_at: datetime

    @classmethod
    def of(cls, project: tables.Project) -> Self:
        """One project."""
        return cls(
            id=project.id,
            name=project.name,
            weight=project.weight,
            limits=Limits.model_validate(project.limits or {}),
            created_at=project.created_at,
        )


class ProjectPage(BaseModel):
    """Projects by id."""

    object: Literal["list"] = "list"
    data: list[Project]
    has_more: bool
    first_id: str | None
    last_id: str | None

    @classmethod
    def of(cls, projects: list[tables.Project], *, has_more: bool) -> Self:
        """One page."""
        shown = [Project.of(each) for each in projects]
        first, last = (shown[0].id, shown[-1].id) if shown else (None, None)
        return cls(data=shown, has_more=has_more, first_id=first, last_id=last)


class Key(BaseModel):
    """A key, without the text that opens anything."""

    id: str
    object: Literal["key"] = "key"
    project: str
    name: str
    hint: str | None  # its first characters; null: it was not made by the API
    scopes: list[Scope]
    state: KeyState
    created_at: datetime
    created_by: str | None  # the id of a key; null: the installation
    expires_at: datetime | None  # null: it does not expire
    last_used_at: datetime | None  # at most a minute behind; null: never
    revoked_at: datetime | None
    replaced_by: str | None  # the id of the key that its rotation made

    @classmethod
    def of(cls, view: KeyView) -> Self:
        """One key."""
        return cls(**_fields(view))


class NewKey(Key):
    """A key with its text, which is shown when it is made, and not again."""

    key: str

    @classmethod
    def made(cls, view: KeyView, *, text: str) -> Self:
        """The answer to its creation, or to a rotation."""
        return cls(**_fields(view), key=text)


class KeyPage(BaseModel):
    """Keys, newest first."""

    object: Literal["list"] = "list"
    data: list[Key]
    has_more: bool
    first_id: str | None
    last_id: str | None

    @classmethod
    def of(cls, views: list[KeyView], *, has_more: bool) -> Self:
        """One page."""
        shown = [Key.of(each) for each in views]
        first, last = (shown[0].id, shown[-1].id) if shown else (None, None)
        return cls(data=shown, has_more=has_more, first_id=first, last_id=last)


class CurrentKey(BaseModel):
    """The key with which it was asked."""

    id: str
    object: Literal["current_key"] = "current_key"
    project: str
    scopes: list[Scope]

    @classmethod
    def of(cls, rights: Rights) -> Self:
        """What it may do."""
        scopes = [scope for scope in Scope if scope in rights.scopes]
        return cls(id=rights.key_id, project=rights.project_id, scopes=scopes)


def _fields(view: KeyView) -> dict[str, Any]:
    key = view.key
    return {
        "id": key.id,
        "project": key.project_id,
        "name": key.name,
        "hint": key.hint,
        "scopes": key.scopes,
        "state": view.state,
        "created_at": key.created_at,
        "created_by": key.created_by,
        "expires_at": key.expires_at,
        "last_used_at": key.last_used_at,
        "revoked_at": key.revoked_at,
        "replaced_by": view.replaced_by,
    }
