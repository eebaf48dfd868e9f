"""Every request gets an id, one log line, and an answer, whatever happens inside."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Sequence
from datetime import UTC, datetime

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.server import errors
from jobs.monitoring import catalogue, meters

log = structlog.get_logger(__name__)

REQUEST_ID = "x-request-id"
_OF_THE_CALLER = re.compile(r"[A-Za-z0-9._:-]{1,128}")

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
NO_ROUTE = "none"
QUIET = frozenset({"/healthz", "/readyz"})


class Requests:
    """ASGI middleware; the id is sent back as ``x-request-id`` and stands in every log line.

    It is the caller's own where the request has one that is fit for a log. ``routes``: of the
    application, by which requests are counted.
    """

    def __init__(self, app: ASGIApp, *, routes: Sequence[BaseRoute]) -> None:
        self._app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["state"] = {**scope.get("state", {}), "arrived": datetime.now(UTC)}
        request_id, begun, status = _request_id(scope), time.monotonic(), 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID] = request_id
            await send(message)

        scope["state"] = {**scope.get("state", {}), "request_id": request_id}
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, send_with_id)
            except Exception:
                log.exception("a request met an unexpected error", path=scope["path"])
                if status:
                    self._count(scope, status="cut", seconds=time.monotonic() - begun)
                    raise  # the answer was under way: cut the connection, so that it shows
                await errors.unexpected(request_id)(scope, receive, send_with_id)
            seconds = time.monotonic() - begun
            self._count(scope, status=str(status), seconds=seconds)
            if scope["path"] not in QUIET:
                log.info(
                    "answered",
                    method=scope["method"],
                    path=scope["path"],
                    status=status,
                    seconds=round(seconds, 4),
                )

    def _count(self, scope: Scope, *, status: str, seconds: float) -> None:
        """By the template of the route, which has no id in it."""
        if not meters.counts():
            return
        found: dict[str, str] = {
            "method": scope["method"] if scope["method"] in METHODS else "other",
            "route": self._template(scope),
        }
        meters.observe(catalogue.HTTP_SECONDS, seconds, **found)
        meters.add(catalogue.HTTP_REQUESTS, 1.0, status=status, **found)

    def _template(self, scope: Scope) -> str:
        """Of the route that was reached, or would have been if the request had not been refused."""
        route = scope.get("route") or next(
            (each for each in self._routes if each.matches(scope)[0] is Match.FULL), None
        )
        return getattr(route, "path", NO_ROUTE)


def _request_id(scope: Scope) -> str:
    given = Headers(scope=scope).getlist(REQUEST_ID)
    if len(given) == 1 and _OF_THE_CALLER.fullmatch(given[0]):
        return given[0]
    return f"req_{secrets.token_hex(8)}"
