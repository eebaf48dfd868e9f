"""The installation's workers, as they last beat, and messages that they refused."""

from __future__ import annotations

from fastapi import APIRouter

from api.server import schemas
from api.server.dependencies import Caller, ProjectId, Transaction
from jobs.lookups import clock, predicates
from jobs.queries import capacity, refused_messages
from jobs.rights import Scope
from jobs.tables import Worker

router = APIRouter(tags=["workers"])


@router.get("/v1/workers")
def list_workers(session: Transaction, caller: Caller) -> schemas.WorkerList:
    """Every worker on record, by pool and name; with its models for who may `operate`.

    Models have names that other projects gave them.
    """
    operates = caller.may(Scope.OPERATE)
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
                engines=_engines(worker) if operates else [],
            )
            for worker in capacity.workers(session)
        ]
    )


def _engines(worker: Worker) -> list[schemas.WorkerEngine]:
    found = [each for _, slot in sorted(worker.engines.items()) for each in slot]
    return [schemas.WorkerEngine.model_validate(each) for each in found]


@router.get("/v1/workers/refused-messages")
def list_refused_messages(session: Transaction, _project: ProjectId) -> schemas.RefusedMessageList:
    """Messages of the broker that workers refused or died of, the newest first."""
    found = refused_messages.latest(session)
    return schemas.RefusedMessageList(data=[schemas.RefusedMessage.of(each) for each in found])
