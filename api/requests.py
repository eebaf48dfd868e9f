"""Every request gets an id, one log line, and an answer, whatever happens inside."""

from __future__ import annotations

import secrets
import time

import structlog
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import errors

log = structlog.get_logger(__name__)

QUIET = frozenset({"/healthz", "/readyz"})


class Requests:
    """ASGI middleware; the id is sent back as ``x-request-id`` and stands in every log line."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id, begun, status = f"req_{secrets.token_hex(8)}", time.monotonic(), 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, send_with_id)
            except Exception:
                log.exception("a request met an error nobody expected", path=scope["path"])
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
