"""Pools, workers and training hosts."""

from __future__ import annotations

from fastapi import Request, Response

from api.server import schemas
from api.server.dependencies import Caller, ProjectId, Transaction
from api.server.pages import page_route, rendering
from api.server.routes import hosts, pools, workers
from jobs.lookups import clock

router = page_route.router()


@router.get("/pools")
def show_pools(
    request: Request, session: Transaction, project: ProjectId, caller: Caller
) -> Response:
    """What each pool has, what it wants, and who is silent."""
    found: list[schemas.PoolDemand] = pools.list_pools(session, project).data
    return rendering.page(
        request,
        "pools.html",
        pools=found,
        workers=workers.list_workers(session, caller).data,
        hosts=hosts.list_hosts(session, project).data,
        refused=workers.list_refused_messages(session, project).data,
        now=clock.now(session),
    )
