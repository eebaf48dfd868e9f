"""The installation's training hosts, as their agents last beat."""

from __future__ import annotations

from fastapi import APIRouter

from api.server import schemas
from api.server.dependencies import ProjectId, Transaction
from jobs.queries import hosts

router = APIRouter(tags=["hosts"])


@router.get("/v1/hosts")
def list_hosts(session: Transaction, project: ProjectId) -> schemas.HostList:
    """Every host on record, by pool and name."""
    found = hosts.listing(session, project_id=project)
    return schemas.HostList(data=[schemas.Host.of(view) for view in found])
