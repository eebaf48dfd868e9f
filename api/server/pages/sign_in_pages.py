"""Signing in with a key of a project, and out."""

from __future__ import annotations

import secrets
from http import HTTPStatus
from typing import Annotated

from fastapi import Form, Request, Response
from starlette.responses import RedirectResponse

from api.server import auth, browser_sessions, traffic
from api.server.dependencies import Shared, Transaction
from api.server.pages import forms, page_route, rendering
from jobs.errors import Forbidden, Unauthorized
from jobs.rights import Scope

router = page_route.router()

LONGEST_KEY = 500
UNKNOWN = "This key is not known here, or is not valid any more."
HOME = "/"


@router.get("/sign-in")
def show_sign_in(request: Request, shared: Shared, next: str = HOME) -> Response:  # noqa: A002
    """The form."""
    return _form(request, shared, back=next)


@router.post("/sign-in")
def sign_in(
    *,
    request: Request,
    shared: Shared,
    session: Transaction,
    key: Annotated[str, Form(max_length=LONGEST_KEY)] = "",
    form_token: Annotated[str, Form(max_length=forms.LONGEST)] = "",
    back: Annotated[str, Form(max_length=2000)] = HOME,
) -> Response:
    """Make a session for a valid key. Nothing else is learned from a wrong one."""
    forms.check(form_token, cookie=request.cookies.get(browser_sessions.VISIT_COOKIE, ""))
    try:
        rights = auth.rights(session, key.strip())
        rights.check(Scope.READ)
    except (Unauthorized, Forbidden) as error:
        message = UNKNOWN if isinstance(error, Unauthorized) else f"{error.message}."
        return _form(request, shared, back=back, message=message, status=HTTPStatus.UNAUTHORIZED)
    cookie = browser_sessions.issue(session, key=key.strip(), project_id=rights.project_id)
    answer = RedirectResponse(inside(back), status_code=HTTPStatus.SEE_OTHER)
    _set(answer, browser_sessions.COOKIE, cookie, shared=shared, seconds=_LIFE_SECONDS)
    answer.delete_cookie(browser_sessions.VISIT_COOKIE)
    return answer


@router.post("/sign-out")
def sign_out(
    request: Request, form_token: Annotated[str, Form(max_length=forms.LONGEST)] = ""
) -> Response:
    """Forget the session in this browser."""
    forms.check(form_token, cookie=request.cookies.get(browser_sessions.COOKIE, ""))
    answer = RedirectResponse("/sign-in", status_code=HTTPStatus.SEE_OTHER)
    answer.delete_cookie(browser_sessions.COOKIE)
    return answer


def inside(back: str) -> str:
    """The page to go back to; one of ours, whatever was asked for."""
    path = back.partition("?")[0].partition("#")[0]
    strange = back.startswith("//") or "\\" in back or not back.isprintable()
    return back if traffic.is_page(path) and not strange else HOME


_LIFE_SECONDS = int(browser_sessions.LIFE.total_seconds())


def _form(
    request: Request, shared: Shared, *, back: str, message: str = "", status: int = HTTPStatus.OK
) -> Response:
    visit = request.cookies.get(browser_sessions.VISIT_COOKIE) or secrets.token_urlsafe(16)
    answer = rendering.page(
        request,
        "sign_in.html",
        status=status,
        back=inside(back),
        message=message,
        visit_token=browser_sessions.form_token(visit),
    )
    _set(answer, browser_sessions.VISIT_COOKIE, visit, shared=shared, seconds=None)
    return answer


def _set(answer: Response, name: str, value: str, *, shared: Shared, seconds: int | None) -> None:
    answer.set_cookie(
        name,
        value,
        max_age=seconds,
        httponly=True,
        samesite="strict",
        secure=shared.settings.public_url.startswith("https:"),
    )
