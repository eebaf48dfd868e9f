"""What every request passes before a route sees it: its text, its key, its place, its body.

In this order: a target that no name can have is refused, and so is a key that was valid before and
has no place left; the key is looked up, the caller's place is taken, and only then is a body read.
An upload's body goes to its route as it comes; any other is read here, up to ``MAX_BODY``, and
checked as JSON before a model reads it.
"""

from __future__ import annotations

import re
from contextlib import AsyncExitStack
from urllib.parse import unquote_plus

import anyio.to_thread
from starlette.datastructures import QueryParams
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.server import browser_sessions, errors, json_body, openapi, traffic
from api.server.audit_trail import Trail
from api.server.auth import Caller, Keys
from api.server.pages import page_errors
from jobs.errors import BadRequest, NightshiftError, NotFound, TooLarge
from jobs.settings import Settings

MAX_BODY = 2**20
"""Bytes of any request's body but an upload's, which counts for itself."""

CHECKED_AT_ONCE = 2**14
"""A larger body is checked in a thread, so that others' requests go on meanwhile."""

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_WITH_BODY = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class Gate:
    """ASGI middleware; leaves the caller's rights in the request's state."""

    def __init__(self, app: ASGIApp, *, settings: Settings) -> None:
        self._app = app
        self._keys = Keys()
        self._trail = Trail()
        self._budgets = traffic.budgets(settings)
        self._pending = traffic.pending()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve or refuse one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        async with AsyncExitStack() as places:
            try:
                receive = await self._pass(scope, receive, places)
            except (NightshiftError, *errors.DATABASE_DOWN) as error:
                answers = page_errors if traffic.is_page(scope["path"]) else errors
                await answers.response(error, scope)(scope, receive, send)
            except ClientDisconnect:
                pass  # no one is left to answer to
            else:
                await self._app(scope, receive, self._trail.watch(scope, send))

    async def _pass(self, scope: Scope, receive: Receive, places: AsyncExitStack) -> Receive:
        """Raises an error for a request that must not pass."""
        check_target(scope)
        kind = traffic.kind_of(scope["method"], scope["path"])
        if known := self._keys.remembered(_header(scope, b"authorization")):
            self._budgets[kind].check(known)  # before anything is done for the request
        caller = await self._caller(scope)
        if kind in traffic.SHORT:
            await places.enter_async_context(self._pending.place(caller))
            if _takes_body(scope):
                receive = _again(await _body(scope, receive), receive)
        await places.enter_async_context(self._budgets[kind].place(caller))
        return receive

    async def _caller(self, scope: Scope) -> str:
        """What the request's limits are counted by: its key, or its address without one."""
        address = str((scope.get("client") or ("unknown",))[0])
        if traffic.is_page(scope["path"]):
            return await self._visitor(scope, address=address)
        if not traffic.needs_key(scope["path"]):
            return f"address {address}"
        sessions = scope["app"].state.resources.sessions
        key, job_id = _header(scope, b"authorization"), traffic.watched_job(scope["path"])
        token = QueryParams(scope["query_string"]).get("token") if job_id else None
        if key is None and token and job_id:
            found = await self._keys.watcher(
                token, job_id=job_id, address=address, sessions=sessions
            )
        else:
            found = await self._keys.caller(key, address=address, sessions=sessions)
        return _enter(scope, found)

    async def _visitor(self, scope: Scope, *, address: str) -> str:
        """A page acts for the key with which its reader signed in, and counts as that key."""
        cookie = HTTPConnection(scope).cookies.get(browser_sessions.COOKIE)
        sessions = scope["app"].state.resources.sessions
        return _enter(scope, await self._keys.visitor(cookie, address=address, sessions=sessions))


def _enter(scope: Scope, caller: Caller) -> str:
    state = {"rights": caller.rights, "caller": caller.name}
    scope["state"] = {**scope.get("state", {}), **state}
    return caller.name


def check_target(scope: Scope) -> None:
    """Raise for a path or a query that holds a control character: no name here has one."""
    if _CONTROL.search(scope["path"]):
        raise NotFound("no id and no name here holds a control character")
    if _CONTROL.search(unquote_plus(scope["query_string"].decode("latin-1"))):
        raise BadRequest("the query must hold no control character")


def _takes_body(scope: Scope) -> bool:
    """Whether a route reads the body; without one the answer is 404 or 405, whatever was sent."""
    method = scope["method"]
    if traffic.has_form(scope["path"]):
        return bool(method == "POST")
    return method in _WITH_BODY and method in openapi.methods(scope["app"], scope["path"])


async def _body(scope: Scope, receive: Receive) -> bytes:
    """The whole body, checked. Raises ``TooLarge``, ``BadRequest`` and ``ClientDisconnect``."""
    if int(_header(scope, b"content-length") or 0) > MAX_BODY:
        raise _too_large()
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > MAX_BODY:
            raise _too_large()
    if len(body) > CHECKED_AT_ONCE:
        await anyio.to_thread.run_sync(json_body.check, bytes(body))
    elif body:
        json_body.check(bytes(body))
    return bytes(body)


def _again(body: bytes, receive: Receive) -> Receive:
    """A ``receive`` that gives this body first."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _header(scope: Scope, name: bytes) -> str | None:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), None)


def _too_large() -> TooLarge:
    return TooLarge("the body of this request is too large; upload data with POST /v1/files")
