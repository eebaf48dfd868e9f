"""The audit trail of the caller's project; with the scope `operate` of any."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from api.server import schemas
from api.server.dependencies import ByAge, Caller, Limit, OfProject, Transaction
from jobs import names
from jobs.moments import Moment
from jobs.queries import audit
from jobs.queries.audit import AuditFilter
from jobs.queries.paging import Order

router = APIRouter(prefix="/v1/audit", tags=["audit"])


@router.get("")
def list_audit(
    *,
    session: Transaction,
    caller: Caller,
    project: OfProject = None,
    limit: Limit = 100,
    after: Annotated[
        int | None, Query(ge=0, lt=2**62, description="The `next` of the page before.")
    ] = None,
    order: ByAge = Order.DESC,
    key: Annotated[
        str | None, Query(pattern=f"^{names.ID}$", description="Only what this key has done.")
    ] = None,
    about: Annotated[
        str | None,
        Query(
            alias="object",
            min_length=1,
            max_length=300,
            description="Only what was done to this object, such as the id of a job.",
        ),
    ] = None,
    since: Annotated[Moment | None, Query(description="Only from then on.")] = None,
    until: Annotated[Moment | None, Query(description="Only before then.")] = None,
) -> schemas.AuditPage:
    """Who did what, from where, and how it was answered, newest first."""
    found, more = audit.page(
        session,
        project_id=caller.project(project),
        wanted=AuditFilter(key_id=key, object=about, since=since, until=until),
        limit=limit,
        after=after,
        order=order,
    )
    return schemas.AuditPage.of(found, has_more=more)
