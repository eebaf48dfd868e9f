"""Who is calling: a bearer key, and the project it acts for.

Keys are looked up in the database each time, so that a revoked one ends at once. Keys that were
valid before have threads of their own: a client that tries keys delays no one who has one.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass

import anyio
import anyio.to_thread
from sqlalchemy.orm import Session

from api.server import event_tokens
from api.server.budgets import Budget
from jobs.database import Sessions
from jobs.errors import Unauthorized
from jobs.ledger import projects

MESSAGE = (
    "a valid API key must be sent as `Authorization: Bearer KEY`; `nightshift up` writes one down"
)
"""The same for a missing, a malformed and an unknown key: a guesser learns nothing."""

REMEMBERED = 10_000
"""Keys that are remembered as valid before; the one used longest ago is forgotten first."""


@dataclass(frozen=True)
class Caller:
    """The project that a request acts for, and what its client's limits are counted by."""

    project_id: str
    name: str


class Keys:
    """Looks up keys for one process; used by its event loop."""

    def __init__(self) -> None:
        self._valid_before: OrderedDict[str, None] = OrderedDict()
        self._known_threads = anyio.CapacityLimiter(4)
        self._unknown_threads = anyio.CapacityLimiter(2)
        self._unknown = Budget("lookups of unknown keys", total=512, per_caller=32)

    async def caller(self, header: str | None, *, address: str, sessions: Sessions) -> Caller:
        """The caller with this ``Authorization`` header.

        Raises ``Unauthorized``, and ``TooMany`` for an address that sends unknown keys faster than
        they are looked up.
        """
        key = bearer(header)
        name = _name(key)
        if name in self._valid_before:
            found = await _look_up(sessions, key, threads=self._known_threads)
        else:
            async with self._unknown.place(address):
                found = await _look_up(sessions, key, threads=self._unknown_threads)
        self._remember(name)
        return Caller(project_id=found, name=name)

    def remembered(self, header: str | None) -> str | None:
        """The name of the caller with this header, if its key was valid before."""
        _, _, key = (header or "").partition(" ")
        name = _name(key.strip())
        return name if name in self._valid_before else None

    async def watcher(self, token: str, *, job_id: str, address: str, sessions: Sessions) -> Caller:
        """Who holds this token of a job's events. Raises ``Unauthorized`` and ``TooMany``."""

        def look_up() -> str:
            with sessions.begin() as session:
                return event_tokens.project(session, token, job_id=job_id)

        async with self._unknown.place(address):
            found = await anyio.to_thread.run_sync(look_up, limiter=self._unknown_threads)
        return Caller(project_id=found, name=f"watchers of {found}")

    def _remember(self, name: str) -> None:
        self._valid_before[name] = None
        self._valid_before.move_to_end(name)
        if len(self._valid_before) > REMEMBERED:
            self._valid_before.popitem(last=False)


def _name(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def bearer(header: str | None) -> str:
    """The key in an ``Authorization`` header. Raises ``Unauthorized``."""
    scheme, _, key = (header or "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise Unauthorized(MESSAGE)
    return key.strip()


def project(session: Session, key: str) -> str:
    """The key's project. Raises ``Unauthorized``."""
    try:
        return projects.authenticate(session, key=key)
    except Unauthorized as error:
        raise Unauthorized(MESSAGE) from error


async def _look_up(sessions: Sessions, key: str, *, threads: anyio.CapacityLimiter) -> str:
    def look_up() -> str:
        with sessions.begin() as session:
            return project(session, key)

    return await anyio.to_thread.run_sync(look_up, limiter=threads)
