"""The scope that a key must have for each route: the one place where scopes are enforced.

A route under ``/v1`` that has no row here is closed to every key, and fails a test.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from fastapi import Request

from api.server import traffic
from jobs.errors import Forbidden
from jobs.rights import Rights, Scope

ROUTES: Mapping[str, Scope] = {
    "POST /v1/files": Scope.SUBMIT,
    "GET /v1/files": Scope.READ,
    "GET /v1/files/{file_id}": Scope.READ,
    "DELETE /v1/files/{file_id}": Scope.SUBMIT,
    "GET /v1/files/{file_id}/content": Scope.READ,
    "POST /v1/jobs": Scope.SUBMIT,
    "GET /v1/jobs": Scope.READ,
    "GET /v1/jobs/{job_id}": Scope.READ,
    "GET /v1/jobs/{job_id}/why": Scope.READ,
    "GET /v1/jobs/{job_id}/inputs": Scope.READ,
    "DELETE /v1/jobs/{job_id}": Scope.SUBMIT,
    "POST /v1/jobs/{job_id}/cancel": Scope.SUBMIT,
    "POST /v1/jobs/{job_id}/pause": Scope.SUBMIT,
    "POST /v1/jobs/{job_id}/resume": Scope.SUBMIT,
    "POST /v1/jobs/{job_id}/retry": Scope.SUBMIT,
    "POST /v1/groups": Scope.SUBMIT,
    "GET /v1/groups": Scope.READ,
    "GET /v1/groups/{group_id}": Scope.READ,
    "GET /v1/groups/{group_id}/metrics": Scope.READ,
    "POST /v1/groups/{group_id}/cancel": Scope.SUBMIT,
    "POST /v1/groups/{group_id}/retry": Scope.SUBMIT,
    "GET /v1/jobs/{job_id}/events": Scope.READ,
    "POST /v1/jobs/{job_id}/events/token": Scope.READ,
    "GET /v1/jobs/{job_id}/chunks": Scope.READ,
    "GET /v1/jobs/{job_id}/results": Scope.READ,
    "GET /v1/jobs/{job_id}/output": Scope.READ,
    "GET /v1/jobs/{job_id}/verification": Scope.READ,
    "GET /v1/jobs/{job_id}/runs": Scope.READ,
    "GET /v1/jobs/{job_id}/checkpoints": Scope.READ,
    "GET /v1/jobs/{job_id}/points": Scope.READ,
    "GET /v1/jobs/{job_id}/logs": Scope.READ,
    "GET /v1/jobs/{job_id}/report": Scope.READ,
    "GET /v1/models": Scope.READ,
    "GET /v1/models/{model}": Scope.READ,
    "GET /v1/models/{name}/versions": Scope.READ,
    "DELETE /v1/models/{name}/versions/{version}": Scope.SUBMIT,
    "GET /v1/models/{name}/versions/{version}/files/{path}": Scope.READ,
    "GET /v1/models/{name}/aliases/{alias}": Scope.READ,
    "PUT /v1/models/{name}/aliases/{alias}": Scope.SUBMIT,
    "DELETE /v1/models/{name}/aliases/{alias}": Scope.SUBMIT,
    "POST /v1/models/{name}/aliases/{alias}/rollback": Scope.SUBMIT,
    "GET /v1/models/{name}/aliases/{alias}/history": Scope.READ,
    "GET /v1/models/{name}/promotions": Scope.READ,
    "GET /v1/models/{name}/promotions/{decision}": Scope.READ,
    "POST /v1/schedules": Scope.SUBMIT,
    "GET /v1/schedules": Scope.READ,
    "GET /v1/schedules/{schedule}": Scope.READ,
    "PATCH /v1/schedules/{schedule}": Scope.SUBMIT,
    "DELETE /v1/schedules/{schedule}": Scope.SUBMIT,
    "POST /v1/schedules/{schedule}/pause": Scope.SUBMIT,
    "POST /v1/schedules/{schedule}/resume": Scope.SUBMIT,
    "POST /v1/schedules/{schedule}/trigger": Scope.SUBMIT,
    "POST /v1/schedules/{schedule}/backfill": Scope.SUBMIT,
    "GET /v1/schedules/{schedule}/fires": Scope.READ,
    "GET /v1/schedules/{schedule}/preview": Scope.READ,
    "GET /v1/schedules/{schedule}/versions": Scope.READ,
    "GET /v1/webhook_event_types": Scope.READ,
    "POST /v1/webhook_endpoints": Scope.ADMIN,
    "GET /v1/webhook_endpoints": Scope.READ,
    "GET /v1/webhook_endpoints/{endpoint}": Scope.READ,
    "POST /v1/webhook_endpoints/{endpoint}": Scope.ADMIN,
    "DELETE /v1/webhook_endpoints/{endpoint}": Scope.ADMIN,
    "POST /v1/webhook_endpoints/{endpoint}/rotate_secret": Scope.ADMIN,
    "POST /v1/webhook_endpoints/{endpoint}/enable": Scope.ADMIN,
    "POST /v1/webhook_endpoints/{endpoint}/test": Scope.ADMIN,
    "GET /v1/webhook_endpoints/{endpoint}/deliveries": Scope.READ,
    "GET /v1/webhook_endpoints/{endpoint}/deliveries/{delivery}": Scope.READ,
    "POST /v1/webhook_endpoints/{endpoint}/deliveries/{delivery}/resend": Scope.ADMIN,
    "GET /v1/retention": Scope.READ,
    "PUT /v1/retention": Scope.ADMIN,
    "GET /v1/jobs/{job_id}/retention": Scope.READ,
    "PUT /v1/jobs/{job_id}/retention": Scope.SUBMIT,
    "GET /v1/storage": Scope.READ,
    "GET /v1/pools": Scope.READ,
    "GET /v1/pools/{pool}/demand": Scope.READ,
    "GET /v1/hosts": Scope.READ,
    "GET /v1/workers": Scope.READ,
    "GET /v1/workers/refused-messages": Scope.READ,
    "GET /v1/audit": Scope.ADMIN,
    "POST /v1/projects": Scope.OPERATE,
    "GET /v1/projects": Scope.OPERATE,
    "GET /v1/projects/{project}": Scope.READ,
    "PATCH /v1/projects/{project}": Scope.OPERATE,
    "POST /v1/keys": Scope.ADMIN,
    "GET /v1/keys": Scope.ADMIN,
    "GET /v1/keys/current": Scope.READ,
    "GET /v1/keys/{key_id}": Scope.ADMIN,
    "POST /v1/keys/{key_id}/rotate": Scope.ADMIN,
    "POST /v1/keys/{key_id}/revoke": Scope.ADMIN,
}
"""By method and template; ``HEAD`` is as ``GET``."""


async def check(request: Request) -> None:
    """A dependency of every route, which notes what the audit trail is to say of it.

    Raises ``Forbidden``.
    """
    path = request.scope["route"].path_format
    if not traffic.needs_key(path) and not traffic.is_page(path):
        return
    request.state.route = path
    request.state.object = "/".join(request.path_params.values()) or None
    scope = needed(request.method, path)
    if scope is None:
        raise Forbidden("this route is open to no key")
    cast("Rights", request.state.rights).check(scope)


def needed(method: str, path: str) -> Scope | None:
    """The scope of a route by its template, or of a page; ``None``: it has no row."""
    if traffic.is_page(path):
        return Scope.SUBMIT if method == "POST" else Scope.READ
    method = "GET" if method == "HEAD" else method
    return ROUTES.get(f"{method} {path}")
