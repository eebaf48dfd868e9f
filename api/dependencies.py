"""What routes are given: resources of the process, a session, the caller's project, checked ids."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Path, Query, Request
from sqlalchemy.orm import Session

from api import auth
from api.uploads import Uploads
from jobs.database import Sessions
from jobs.objects import ObjectStore
from jobs.settings import Settings


@dataclass(frozen=True)
class Resources:
    """What lives as long as the process; threads share it."""

    settings: Settings
    sessions: Sessions
    store: ObjectStore
    uploads: Uploads


def resources(request: Request) -> Resources:
    """The process's resources, made by the application's lifespan."""
    return cast("Resources", request.app.state.resources)


Shared = Annotated[Resources, Depends(resources)]


def project(shared: Shared, request: Request) -> str:
    """The project that the request's key acts for; its own short transaction."""
    key = auth.bearer(request.headers.get("authorization"))
    with shared.sessions.begin() as session:
        return auth.project(session, key)


def transaction(shared: Shared) -> Iterator[Session]:
    """A session that is committed before the answer is sent, and rolled back by an error."""
    with shared.sessions.begin() as session:
        yield session


ProjectId = Annotated[str, Depends(project)]
Transaction = Annotated[Session, Depends(transaction, scope="function")]

JobId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,80}$")]
FileId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,80}$")]
After = Annotated[
    str | None,
    Query(pattern=r"^[A-Za-z0-9_-]{1,80}$", description="The `last_id` of the page before."),
]
Limit = Annotated[int, Query(ge=1, le=1000, description="Most entries of one page.")]
