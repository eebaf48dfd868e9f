"""Kinds of requests, and how many of each may be under way: one kind never starves another.

A kind's places are threads and connections to Postgres as well, because a request holds at most one
of each at a time. The table below is all there is to say about a kind.
"""

from __future__ import annotations

import re
from enum import StrEnum

from api.server.budgets import Budget
from jobs.settings import Settings


class Kind(StrEnum):
    """What a request costs."""

    ORDINARY = "requests"
    UPLOAD = "uploads"
    DOWNLOAD = "downloads"
    STREAM = "event streams"
    VERIFICATION = "verifications"
    PUBLIC = "requests without a key"
    LIVENESS = "requests for /healthz"


UPLOADS = "/v1/files"
"""The one path whose bodies may be of any size."""

SIGNING = frozenset({"/sign-in", "/sign-out"})
"""Pages without a session."""

AT_ONCE = {
    Kind.ORDINARY: 16,
    Kind.UPLOAD: 64,
    Kind.DOWNLOAD: 32,
    Kind.STREAM: 256,
    Kind.VERIFICATION: 4,
    Kind.PUBLIC: 16,
    Kind.LIVENESS: 16,
}
"""Requests of a kind that run at a time in one process, of all callers together."""

THREADS = sum(AT_ONCE.values())
"""Threads of the process for its routes: no kind ever waits for one that another kind holds."""

SHORT = frozenset({Kind.ORDINARY, Kind.PUBLIC, Kind.LIVENESS})
"""What ends soon by itself: these requests wait for a place, the others are refused."""

ORDINARY_PER_KEY = 8
PUBLIC_PER_ADDRESS = 8
PENDING, PENDING_PER_CALLER = 2048, 64
"""Short requests that have come and are not answered: their bodies, of at most a MiB, are in
memory."""

_DOWNLOADS = re.compile(
    r"/v1/files/[^/]+/content|(/v1)?/jobs/[^/]+/(output|results|report)"
    r"|/v1/models/[^/]+/versions/[^/]+/files/.+"
)
_STREAMS = re.compile(r"/v1/jobs/(?P<job>[^/]+)/events|/jobs/[^/]+/events")
_PAGES = re.compile(r"/|/(jobs|pools|schedules|models|selection)(/.*)?")
_VERIFICATIONS = re.compile(r"/v1/jobs/[^/]+/verification")


def kind_of(method: str, path: str) -> Kind:
    """The kind of a request."""
    if not needs_key(path) and not is_page(path):
        return Kind.LIVENESS if path == "/healthz" else Kind.PUBLIC
    if method == "POST" and path == UPLOADS:
        return Kind.UPLOAD
    if method == "GET":
        for pattern, kind in (
            (_DOWNLOADS, Kind.DOWNLOAD),
            (_STREAMS, Kind.STREAM),
            (_VERIFICATIONS, Kind.VERIFICATION),
        ):
            if pattern.fullmatch(path):
                return kind
    return Kind.ORDINARY


def watched_job(path: str) -> str | None:
    """The job of an event stream, which a token opens as well as a key; None: it is none."""
    found = _STREAMS.fullmatch(path)
    return found["job"] if found else None


def needs_key(path: str) -> bool:
    """Whether the path is one that only a key opens."""
    return path == "/v1" or path.startswith("/v1/")


def is_page(path: str) -> bool:
    """Whether the path is a page for people, which only the session of a browser opens."""
    return _PAGES.fullmatch(path) is not None


def has_form(path: str) -> bool:
    """Whether what is sent to the path is the form of a page."""
    return is_page(path) or path in SIGNING


def budgets(settings: Settings) -> dict[Kind, Budget]:
    """The budget of each kind. Short requests wait for a place, long ones are refused."""
    per_caller = {
        Kind.ORDINARY: ORDINARY_PER_KEY,
        Kind.UPLOAD: settings.uploads_per_key,
        Kind.DOWNLOAD: settings.downloads_per_key,
        Kind.STREAM: settings.streams_per_key,
        Kind.VERIFICATION: settings.verifications_per_key,
        Kind.PUBLIC: PUBLIC_PER_ADDRESS,
        Kind.LIVENESS: PUBLIC_PER_ADDRESS,
    }
    return {
        kind: Budget(
            kind.value, total=AT_ONCE[kind], per_caller=per_caller[kind], waits=kind in SHORT
        )
        for kind in Kind
    }


def pending() -> Budget:
    """The budget of requests that wait for their body or for a place."""
    return Budget("requests", total=PENDING, per_caller=PENDING_PER_CALLER)
