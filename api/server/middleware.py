"""Every request gets an id, one log line, a limit, and an answer, whatever happens inside."""

from __future__ import annotations

import secrets
import time
from http import HTTPStatus

import structlog
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.server import errors

log = structlog.get_logger(__name__)

MAX_BODY = 2**20
"""Bytes of any request's body but an upload's, which counts for itself."""

QUIET = frozenset({"/healthz", "/readyz"})


class Requests:
    """ASGI middleware; the id is sent back as ``x-request-id`` and stands in every log line."""

    def __init__(self, app: ASGIApp, *, uploads: str) -> None:
        """``uploads``: the path whose bodies may be of any size."""
        self._app = app
        self._uploads = uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["path"] != self._uploads:
            receive = _limited(receive)
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


def _limited(receive: Receive) -> Receive:
    """The same, until the body has more than ``MAX_BODY`` bytes."""
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > MAX_BODY:
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        return message

    return counted
