"""Every error in the one shape that the official client reads.

``{"error": {"message", "type", "param", "code"}}``. A message says what must be and what was
given, and shows nothing of the inside (stack, SQL, paths).
"""

from __future__ import annotations

from http import HTTPStatus
from typing import cast

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy import exc
from starlette.exceptions import HTTPException
from starlette.types import Scope

from api.server import openapi
from api.server.budgets import RETRY_SECONDS
from jobs import validation
from jobs.errors import BadRequest, JobFailure, NightshiftError, NotFound, RangeUnsatisfiable

log = structlog.get_logger(__name__)

DATABASE_DOWN = (exc.OperationalError, exc.InterfaceError, exc.TimeoutError)
"""Gone, restarting, overloaded, or too slow: the same request may work a little later."""

_RETRY_AFTER = {HTTPStatus.TOO_MANY_REQUESTS: RETRY_SECONDS, HTTPStatus.SERVICE_UNAVAILABLE: 2}
"""Seconds after which a client may try again."""

_TYPES = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.FORBIDDEN: "permission_error",
    HTTPStatus.NOT_FOUND: "not_found_error",
    HTTPStatus.CONFLICT: "conflict_error",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
}


def install(app: FastAPI) -> None:
    """Answer every exception of this application."""
    app.add_exception_handler(NightshiftError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(exc.DataError, _unstorable)
    for error in DATABASE_DOWN:
        app.add_exception_handler(error, _database_down)


def response(error: NightshiftError | exc.SQLAlchemyError, _scope: Scope) -> JSONResponse:
    """The response for an error before any route, of ours or of a database that is down."""
    return answer(error) if isinstance(error, NightshiftError) else _away(error)


def answer(error: NightshiftError, *, status: int | None = None) -> JSONResponse:
    """The response for an error of ours."""
    code = error.status if status is None else status
    seconds = _RETRY_AFTER.get(HTTPStatus(code))
    headers = {"retry-after": str(seconds)} if seconds else {}
    if isinstance(error, RangeUnsatisfiable):
        headers["content-range"] = f"bytes */{error.size}"
    return _response(code, error.message, code=error.code, param=error.param, headers=headers)


def unexpected(request_id: str) -> JSONResponse:
    """The response for an unexpected error: an id to look for in the log."""
    return _response(
        500,
        f"something went wrong here; the server's log has the details under {request_id}",
        code="internal_error",
    )


def _ours(_request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, JobFailure):  # the request itself was sound; what it points at is not
        return answer(error, status=422)
    return answer(cast("NightshiftError", error))


def _invalid(_request: Request, error: Exception) -> JSONResponse:
    problems = cast("RequestValidationError", error).errors()
    if any(problem["loc"][0] == "path" for problem in problems):
        return answer(NotFound("no such id here; an id is letters, digits, `_` and `-`"))
    message, param = validation.explain(problems)
    in_body = any(problem["loc"][0] == "body" for problem in problems)
    return answer(BadRequest(message, param=param, code="bad_spec" if in_body else None))


def _http(request: Request, error: Exception) -> JSONResponse:
    found = cast("HTTPException", error)
    status = HTTPStatus(found.status_code)
    messages = {
        404: f"no route {request.method} {request.url.path}; docs/api.md lists them all",
        405: f"{request.url.path} does not answer to {request.method}",
    }
    codes = {404: "unknown_route"}
    headers = dict(found.headers or {})
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["allow"] = ", ".join(openapi.methods(request.app, request.url.path)) or "GET"
    return _response(
        status,
        messages.get(status, str(found.detail)),
        code=codes.get(status, status.name.lower()),
        headers=headers,
    )


def _unstorable(_request: Request, _error: Exception) -> JSONResponse:
    return _response(
        400, "the request holds a text or a number that cannot be stored", code="bad_request"
    )


def reason(error: Exception) -> str:
    """Why the database did not answer, in the driver's words, for the log."""
    return str(getattr(error, "orig", None) or error)


def _database_down(_request: Request, error: Exception) -> JSONResponse:
    return _away(error)


def _away(error: Exception) -> JSONResponse:
    log.warning("the database did not answer", error=reason(error))
    return _response(
        503,
        "the database does not answer at the moment; try again in a few seconds",
        code="database_unavailable",
        headers={"retry-after": "2"},
    )


def _response(
    status: int,
    message: str,
    *,
    code: str,
    param: str | None = None,
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    kind = "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
    sent = dict(headers or {})
    if status == HTTPStatus.CONFLICT:
        sent["x-should-retry"] = "false"  # the official client would send it again
    if status == HTTPStatus.UNAUTHORIZED:
        sent["www-authenticate"] = "Bearer"
    error = {
        "message": _encodable(message),
        "type": _TYPES.get(HTTPStatus(status), kind),
        "param": param,
        "code": code,
    }
    return JSONResponse({"error": error}, status_code=status, headers=sent)


def _encodable(message: str) -> str:
    """Without the lone surrogates that a client's JSON can carry and UTF-8 cannot."""
    return message.encode("utf-8", "replace").decode()
