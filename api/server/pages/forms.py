"""What every form is checked for before it changes anything."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Form, Request

from api.server import browser_sessions
from api.server.dependencies import Shared
from jobs.errors import NightshiftError

LONGEST = 200


class FormRefused(NightshiftError):
    """The form was not sent from a page of ours to this browser, or the page is read-only."""

    status = 403
    code = "form_refused"


def check_token(
    request: Request, form_token: Annotated[str, Form(max_length=LONGEST)] = ""
) -> None:
    """Raise ``FormRefused`` for a form that this browser's session was not given."""
    check(form_token, cookie=request.cookies.get(browser_sessions.COOKIE, ""))


def check(token: str, *, cookie: str) -> None:
    """The same for the holder of any cookie of ours."""
    if not cookie or not browser_sessions.is_form_token(token, cookie=cookie):
        raise FormRefused("this form is out of date: go back, load the page again, and repeat it")


def check_writable(shared: Shared) -> None:
    """Raise ``FormRefused`` where the page may change nothing."""
    if shared.settings.page_read_only:
        raise FormRefused("this page is read-only here (NIGHTSHIFT_PAGE_READ_ONLY)")


CHECKED = [Depends(check_writable), Depends(check_token)]
"""Of every route that changes something."""
