"""Every request gets an id, one log line, and an answer, whatever happens inside."""

from __future__ import annotations

import re
import secrets
import time

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.server import errors

log = structlog.get_logger(__name__)

REQUEST_ID = "x-request-id"
_OF_THE_CALLER = re.compile(r"[A-Za-z0-9._:-]{1,128}")

QUIET = frozenset({"/healthz", "/readyz"})


class Requests:
    """ASGI middleware; the id is sent back as ``x-request-id`` and stands in every log line.

    It is the caller's own where the request has one that is fit for a log.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id, begun, status = _request_id(scope), time.monotonic(), 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID] = request_id
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, send_with_id)
            except Exception:
                log.exception("a request met an unexpected error", path=scope["path"])
                if status:
                    raise  # the answer was under way: cut the connection, so that it shows
                await errors.unexpected(request_id)(scope, receive, send_with_id)
            if scope["path"] not in QUIET:
                log.info(
                    "answered",
                    method=scope["method"],
                    path=scope["path"],
                    status=status,
                    seconds=round(time.monotonic() - begun, 4),
                )


def _request_id(scope: Scope) -> str:
    given = Headers(scope=scope).getlist(REQUEST_ID)
    if len(given) == 1 and _OF_THE_CALLER.fullmatch(given[0]):
        return given[0]
    return f"req_{secrets.token_hex(8)}"
