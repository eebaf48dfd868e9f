"""Whether the process is up, and whether it can serve. No key is needed."""

from __future__ import annotations

from fastapi import APIRouter

from api.server import schemas
from api.server.dependencies import Transaction
from jobs.lookups import clock

router = APIRouter(tags=["health"])


@router.get("/healthz")
def healthz() -> schemas.Health:
    """The process answers."""
    return schemas.Health()


@router.get("/readyz")
def readyz(session: Transaction) -> schemas.Health:
    """Postgres answers; 503 when it does not."""
    clock.now(session)
    return schemas.Health()
