"""The installation's workers, as they last beat."""

from __future__ import annotations

from fastapi import APIRouter

from api.server import schemas
from api.server.dependencies import ProjectId, Transaction
from jobs.lookups import clock, predicates
from jobs.queries import capacity

router = APIRouter(tags=["workers"])


@router.get("/v1/workers")
def list_workers(session: Transaction, _project: ProjectId) -> schemas.WorkerList:
    """Every worker on record, by pool and name."""
    lately = clock.now(session) - predicates.SILENCE
    return schemas.WorkerList(
        data=[
            schemas.Worker(
                name=worker.name,
                pool=worker.pool,
                slots=worker.slots,
                device=worker.device,
                started_at=worker.started_at,
                beat_at=worker.beat_at,
                alive=worker.beat_at > lately,
                engines=[each for _, slot in sorted(worker.engines.items()) for each in slot],
            )
            for worker in capacity.workers(session)
        ]
    )
