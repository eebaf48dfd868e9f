"""Errors as pages; who has not signed in is led there."""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import quote

from fastapi.exceptions import RequestValidationError
from sqlalchemy import exc
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import Scope

from api.server import errors
from api.server.pages import rendering
from jobs import validation
from jobs.errors import BadRequest, NightshiftError, NotFound, Unauthorized

SIGN_IN = "/sign-in"
STREAM = "text/event-stream"


def response(error: Exception, scope: Scope) -> Response:
    """The page for an error of a page, before or in its route."""
    if isinstance(error, Unauthorized):
        return _to_sign_in(scope)
    found = _ours(error)
    status = HTTPStatus(found.status)
    text = rendering.fragment("error.html", title=status.phrase, message=found.message)
    return HTMLResponse(text, status_code=status, headers=rendering.HEADERS)


def _ours(error: Exception) -> NightshiftError:
    if isinstance(error, NightshiftError):
        return error
    if isinstance(error, RequestValidationError):
        problems = error.errors()
        if any(problem["loc"][0] == "path" for problem in problems):
            return NotFound("there is no such page")
        return BadRequest(validation.explain(problems)[0])
    if isinstance(error, errors.DATABASE_DOWN):
        return DatabaseAway("the database does not answer at the moment; try again in a moment")
    return BadRequest("the page was asked for with a text or a number that cannot be stored")


class DatabaseAway(NightshiftError):
    """As ``errors`` answers it to programs."""

    status = 503
    code = "database_unavailable"


ANSWERED = (NightshiftError, RequestValidationError, *errors.DATABASE_DOWN, exc.DataError)


def _to_sign_in(scope: Scope) -> Response:
    """A script is told to load the page of signing in, instead of showing it inside another."""
    query = scope["query_string"].decode("latin-1")
    wanted = scope["path"] + (f"?{query}" if query else "")
    back = f"{SIGN_IN}?next={quote(wanted, safe='')}" if scope["method"] == "GET" else SIGN_IN
    headers = dict(scope["headers"])
    if b"hx-request" in headers:
        return Response(status_code=HTTPStatus.NO_CONTENT, headers={"hx-redirect": SIGN_IN})
    if STREAM in headers.get(b"accept", b"").decode("latin-1"):
        return Response(status_code=HTTPStatus.NO_CONTENT)
    return RedirectResponse(back, status_code=HTTPStatus.SEE_OTHER, headers=rendering.HEADERS)
