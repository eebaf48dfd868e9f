"""Groups of jobs: submitted together, watched together, acted on together."""

from __future__ import annotations

import functools
from typing import Annotated

from fastapi import APIRouter, Path, Response
from sqlalchemy.orm import Session

from api.server import schemas
from api.server.creates import Counted
from api.server.dependencies import (
    After,
    ByAge,
    IdempotencyKey,
    Limit,
    NoteMade,
    ProjectId,
    Shared,
    Transaction,
)
from jobs import admission, folding, names
from jobs.kinds.groups import GroupSpec
from jobs.ledger import creations
from jobs.ledger import groups as ledger
from jobs.queries import groups
from jobs.queries.paging import Order

router = APIRouter(prefix="/v1/groups", tags=["groups"])

GroupId = Annotated[str, Path(pattern=f"^{names.ID}$")]


@router.post("", status_code=201, responses={200: {"model": schemas.Group}})
def submit_group(
    *,
    spec: GroupSpec,
    response: Response,
    session: Transaction,
    project: ProjectId,
    shared: Shared,
    note_made: NoteMade,
    counted: Counted,
    idempotency_key: IdempotencyKey = None,
) -> schemas.Group:
    """Accept jobs that need one another, or a sweep: all of them or none."""
    admission.check_group(spec, project_id=project, settings=shared.settings)
    accept = functools.partial(
        ledger.accept, session, project_id=project, spec=spec, idempotency_key=idempotency_key
    )
    group_id, new = creations.once(session, counted, accept)
    note_made(group_id)
    response.status_code = 201 if new else 200
    return schemas.Group.of(groups.get(session, group_id, project_id=project))


@router.get("")
def list_groups(
    *,
    session: Transaction,
    project: ProjectId,
    limit: Limit = 20,
    after: After = None,
    order: ByAge = Order.DESC,
) -> schemas.GroupPage:
    """The project's groups, newest first."""
    found, more = groups.page(session, project_id=project, limit=limit, after=after, order=order)
    return schemas.GroupPage.of(found, has_more=more)


@router.get("/{group_id}")
def get_group(group_id: GroupId, session: Transaction, project: ProjectId) -> schemas.Group:
    """One group: its members, and one progress for all of them."""
    return schemas.Group.of(groups.get(session, group_id, project_id=project))


@router.get("/{group_id}/metrics")
def list_metrics(
    group_id: GroupId, session: Transaction, project: ProjectId
) -> schemas.MeasurementList:
    """What the members that train have measured, side by side."""
    rows = groups.sweep(groups.get(session, group_id, project_id=project))
    return schemas.MeasurementList(data=[schemas.Measurement.of(row) for row in rows])


@router.post("/{group_id}/cancel")
def cancel_group(group_id: GroupId, session: Transaction, project: ProjectId) -> schemas.Group:
    """Cancel every member that has not ended."""
    ledger.cancel(session, group_id, project_id=project)
    return schemas.Group.of(groups.get(session, group_id, project_id=project))


@router.post("/{group_id}/retry")
def retry_group(group_id: GroupId, shared: Shared, project: ProjectId) -> schemas.Group:
    """Retry every member that failed or was cancelled."""

    def retry(session: Session) -> schemas.Group:
        ledger.retry(session, group_id, project_id=project)
        return schemas.Group.of(groups.get(session, group_id, project_id=project))

    return folding.retried(shared.sessions, shared.store, retry)
