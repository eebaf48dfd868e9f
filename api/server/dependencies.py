"""What routes are given: resources of the process, a session, the caller's project, checked ids."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Header, Path, Query, Request, Response
from sqlalchemy.orm import Session

from api.server import audit_trail
from api.server.looks import Looks
from api.server.purge_thread import PurgeThread
from api.server.uploads import Uploads
from jobs import names
from jobs.database import Sessions
from jobs.errors import NotFound
from jobs.objects import ObjectStore
from jobs.queries import jobs
from jobs.queries.jobs import JobView
from jobs.queries.paging import Order
from jobs.rights import Rights
from jobs.settings import Settings


@dataclass(frozen=True)
class Resources:
    """What lives as long as the process; threads share it."""

    settings: Settings
    sessions: Sessions
    store: ObjectStore
    uploads: Uploads
    purge_thread: PurgeThread
    looks: Looks


async def resources(request: Request) -> Resources:
    """The process's resources, made by the application's lifespan."""
    return cast("Resources", request.app.state.resources)


Shared = Annotated[Resources, Depends(resources)]


async def rights(request: Request) -> Rights:
    """What the request's key may do, as the gate has found it."""
    return cast("Rights", request.state.rights)


async def project(request: Request) -> str:
    """The project that the request's key acts for."""
    return cast("Rights", request.state.rights).project_id


async def key_hash(request: Request) -> str:
    """The sha256 of the request's key, as the gate has found it valid."""
    return cast("str", request.state.caller)


def transaction(request: Request, response: Response, shared: Shared) -> Iterator[Session]:
    """A session that is committed before the answer is sent, and rolled back by an error.

    What the request has done is in the audit trail if and only if it is committed.
    """
    with shared.sessions.begin() as session:
        yield session
        audit_trail.record(session, request, response)
    request.state.recorded = True


async def made(request: Request) -> Callable[[str], None]:
    """What a route calls with the id of what it has made, for the audit trail."""
    return functools.partial(audit_trail.made, request)


Caller = Annotated[Rights, Depends(rights)]
ProjectId = Annotated[str, Depends(project)]
KeyHash = Annotated[str, Depends(key_hash)]
NoteMade = Annotated[Callable[[str], None], Depends(made)]
Transaction = Annotated[Session, Depends(transaction, scope="function")]

JobId = Annotated[str, Path(pattern=f"^{names.ID}$")]
FileId = Annotated[str, Path(pattern=f"^{names.ID}$")]
OfProject = Annotated[
    str | None,
    Query(
        pattern=f"^{names.ID}$",
        description="Of this project: the caller's own, or with `operate` any.",
    ),
]
KeyId = Annotated[str, Path(pattern=f"^{names.ID}$", description="The id of a key, `key_...`.")]
ScheduleKey = Annotated[
    str, Path(pattern=f"^{names.SCHEDULE}$", description="The id or the name of a schedule.")
]
After = Annotated[
    str | None,
    Query(pattern=f"^{names.ID}$", description="The `last_id` of the page before."),
]
ByAge = Annotated[Order, Query(description="Newest first (`desc`) or oldest first (`asc`).")]
Limit = Annotated[int, Query(ge=1, le=1000, description="Most entries of one page.")]


IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        description="The same key with the same spec is the same job, however often it is sent.",
    ),
]


def existing(job_id: JobId, shared: Shared, project: ProjectId) -> JobView:
    """The job, looked up in a transaction of its own: what follows may take long."""
    with shared.sessions.begin() as session:
        return jobs.get(session, job_id, project_id=project)


Existing = Annotated[JobView, Depends(existing)]


def bulk(view: Existing) -> JobView:
    """The job, one of bulk work. Raises ``NotFound``."""
    if view.training is None:
        return view
    raise NotFound(
        f"{view.job.id} is a job of kind {view.job.kind}, which has no chunks and no result rows; "
        f"see /v1/jobs/{view.job.id}/runs and /v1/jobs/{view.job.id}/report",
        code="not_bulk",
    )


def training(view: Existing) -> JobView:
    """The job, one that trains or evaluates. Raises ``NotFound``."""
    if view.training is not None:
        return view
    raise NotFound(
        f"{view.job.id} is a job of kind {view.job.kind}, which has no runs and no report; "
        f"see /v1/jobs/{view.job.id}/chunks and /v1/jobs/{view.job.id}/results",
        code="not_training",
    )


Bulk = Annotated[JobView, Depends(bulk)]
Training = Annotated[JobView, Depends(training)]
