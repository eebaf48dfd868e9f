"""Templates, what every page has around them, and the headers under which it is sent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse

from api.server import browser_sessions
from api.server.pages import words
from jobs import figures
from jobs.rights import Scope

TEMPLATES = Path(__file__).with_name("templates")

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""Nothing inline, nothing from elsewhere, and no frame around it."""

HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
}


def page(
    request: Request,
    template: str,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    **values: Any,
) -> HTMLResponse:
    """A page with what its frame needs of the request."""
    rights = request.scope.get("state", {}).get("rights")
    settings = request.app.state.resources.settings
    cookie = request.cookies.get(browser_sessions.COOKIE, "")
    text = fragment(
        template,
        project=None if rights is None else rights.project_id,
        read_only=settings.page_read_only or (rights is not None and not rights.may(Scope.SUBMIT)),
        form_token=browser_sessions.form_token(cookie),
        path=request.url.path,
        address=request.url.path + (f"?{request.url.query}" if request.url.query else ""),
        **values,
    )
    return HTMLResponse(text, status_code=status, headers={**HEADERS, **(headers or {})})


def fragment(template: str, **values: Any) -> str:
    """A template with these values alone."""
    return _ENVIRONMENT.get_template(template).render(**values)


def _iso(at: datetime) -> str:
    return at.isoformat(timespec="seconds")


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["figures"] = figures
    made.globals["words"] = words
    made.filters |= {
        "count": figures.count,
        "span": figures.span,
        "moment": figures.moment,
        "size": figures.size,
        "value": figures.value,
        "iso": _iso,
        "pretty": _pretty,
    }
    return made


_ENVIRONMENT = _environment()
