"""What requests leave in the audit trail.

A request that changes something is recorded in the transaction that changes it where the route has
one (``dependencies.transaction``). All others, refused ones too, are recorded before the answer is
sent. Requests without a valid key, and those that come too fast, are in the log alone.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import anyio
import anyio.to_thread
import structlog
from fastapi import Request, Response
from sqlalchemy import exc
from sqlalchemy.orm import Session
from starlette.types import Message, Scope, Send

from api.server import scopes
from jobs import audit
from jobs.audit import Entry
from jobs.database import Sessions
from jobs.ledger import audit as ledger
from jobs.rights import Scope as KeyScope

log = structlog.get_logger(__name__)

THREADS = 4
"""That write entries for which the route has no transaction."""


class Trail:
    """Of one process; used by its event loop."""

    def __init__(self) -> None:
        self._threads = anyio.CapacityLimiter(THREADS)

    def watch(self, scope: Scope, send: Send) -> Send:
        """A ``send`` that records the request, where that is not done, before its answer begins."""

        async def watching(message: Message) -> None:
            if message["type"] == "http.response.start":
                await self._record(scope, message["status"])
            await send(message)

        return watching

    async def _record(self, scope: Scope, status: int) -> None:
        entry = entry_of(scope, status=status)
        if entry is None or scope["state"].get("recorded"):
            return
        sessions: Sessions = scope["app"].state.resources.sessions

        def write() -> None:
            with sessions.begin() as session:
                ledger.record(session, entry)

        try:
            await anyio.to_thread.run_sync(write, limiter=self._threads)
        except exc.SQLAlchemyError as error:
            log.warning("a request is in no audit trail", error=str(error), **vars(entry))


def record(session: Session, request: Request, response: Response) -> None:
    """Record a request that has done what it was to do, in the transaction that did it."""
    status = response.status_code or request.scope["route"].status_code or HTTPStatus.OK
    entry = entry_of(request.scope, status=int(status))
    if entry is not None:
        ledger.record(session, entry)


def made(request: Request, object_id: str) -> None:
    """What the request has made, which no part of its path names."""
    request.state.object = object_id


def entry_of(scope: Scope, *, status: int) -> Entry | None:
    """What is kept of a request that was answered so; ``None``: nothing."""
    state: dict[str, Any] = scope.get("state", {})
    route, rights = state.get("route"), state.get("rights")
    if route is None or rights is None:
        return None
    refused = status == HTTPStatus.FORBIDDEN
    reads = scopes.needed(scope["method"], route) is KeyScope.READ or scope["method"] == "GET"
    if status == HTTPStatus.TOO_MANY_REQUESTS or (reads and not refused):
        return None
    named = state.get("object")
    return Entry(
        project_id=rights.project_id,
        key_id=rights.key_id,
        address=str((scope.get("client") or ("unknown",))[0]),
        method=scope["method"],
        route=route,
        object=named and named[: audit.LONGEST_OBJECT],
        status=status,
        request_id=state["request_id"],
    )
