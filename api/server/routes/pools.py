"""What the work of pools wants, for people and autoscalers."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Path, Query

from api.server import schemas
from api.server.dependencies import ProjectId, Transaction
from jobs import names
from jobs.lookups import clock
from jobs.queries import demand

DRAIN_SECONDS = int(demand.DRAIN.total_seconds())

router = APIRouter(tags=["pools"])

Pool = Annotated[str, Path(pattern=f"^{names.POOL}$", description="The name of a pool.")]
DrainSeconds = Annotated[
    int,
    Query(
        ge=1,
        le=1_000_000,
        description="Within how many seconds work without a deadline should end.",
    ),
]


@router.get("/v1/pools")
def list_pools(
    session: Transaction,
    project: ProjectId,
    drain_seconds: DrainSeconds = DRAIN_SECONDS,
) -> schemas.PoolList:
    """Every pool that has workers, hosts or work of this project, with its demand."""
    within = timedelta(seconds=drain_seconds)
    found = demand.of_all(session, within=within, project_id=project)
    at = clock.now(session)
    return schemas.PoolList(
        data=[schemas.PoolDemand.of(each, drain_seconds=drain_seconds, at=at) for each in found]
    )


@router.get("/v1/pools/{pool}/demand")
def get_pool_demand(
    pool: Pool,
    session: Transaction,
    _project: ProjectId,
    drain_seconds: DrainSeconds = DRAIN_SECONDS,
) -> schemas.PoolDemand:
    """How many slots and hosts the work of a pool wants; 0 of a pool that is not known."""
    found = demand.of_pool(session, pool, within=timedelta(seconds=drain_seconds))
    return schemas.PoolDemand.of(found, drain_seconds=drain_seconds, at=clock.now(session))
