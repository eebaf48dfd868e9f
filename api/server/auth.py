"""Who is calling: a bearer key, the project it acts for, and what it may do.

What the database answers about a valid key counts for less than a second, so that a revoked one
ends within a second in every process. Keys that were valid before have threads of their own: a
client that tries keys delays no one who has one.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import anyio
import anyio.to_thread
from sqlalchemy.orm import Session

from api.server import browser_sessions, event_tokens
from api.server.budgets import Budget
from jobs.database import Sessions
from jobs.errors import Unauthorized
from jobs.ledger import keys
from jobs.rights import Rights

MESSAGE = (
    "a valid API key must be sent as `Authorization: Bearer KEY`; `nightshift up` writes one down"
)
"""The same for a missing, a malformed and an unknown key: a guesser learns nothing."""

REMEMBERED = 10_000
"""Keys that are remembered as valid before; the one used longest ago is forgotten first."""

FRESH_SECONDS = 0.8
"""How long a look-up counts, from before it begins."""


@dataclass(frozen=True)
class Caller:
    """What a request may do, and what its client's limits are counted by."""

    rights: Rights
    name: str


@dataclass(frozen=True)
class _Known:
    """A key or a session that was valid, and until when that counts, by the monotonic clock."""

    caller: Caller
    until: float


class Keys:
    """Looks up keys for one process; used by its event loop."""

    def __init__(self) -> None:
        self._valid_before: OrderedDict[str, _Known] = OrderedDict()
        self._known_threads = anyio.CapacityLimiter(4)
        self._unknown_threads = anyio.CapacityLimiter(2)
        self._unknown = Budget("lookups of unknown keys", total=512, per_caller=32)

    async def caller(self, header: str | None, *, address: str, sessions: Sessions) -> Caller:
        """The caller with this ``Authorization`` header.

        Raises ``Unauthorized``, and ``TooMany`` for an address that sends unknown keys faster than
        they are looked up.
        """
        key = bearer(header)
        name = keys.key_hash(key)

        def look_up() -> Caller:
            with sessions.begin() as session:
                return Caller(rights(session, key), name)

        return await self._found(name, look_up, address=address)

    def remembered(self, header: str | None) -> str | None:
        """The name of the caller with this header, if its key was valid before."""
        _, _, key = (header or "").partition(" ")
        name = keys.key_hash(key.strip())
        return name if name in self._valid_before else None

    async def watcher(self, token: str, *, job_id: str, address: str, sessions: Sessions) -> Caller:
        """Who holds this token of a job's events. Raises ``Unauthorized`` and ``TooMany``."""

        def look_up() -> Rights:
            with sessions.begin() as session:
                return event_tokens.rights(session, token, job_id=job_id)

        async with self._unknown.place(address):
            found = await anyio.to_thread.run_sync(look_up, limiter=self._unknown_threads)
        return Caller(found, f"watchers of {found.project_id}")

    async def visitor(self, cookie: str | None, *, address: str, sessions: Sessions) -> Caller:
        """Who holds the cookie of a browser's session. Raises ``Unauthorized`` and ``TooMany``."""
        if not cookie:
            raise Unauthorized(browser_sessions.MESSAGE)

        def look_up() -> Caller:
            with sessions.begin() as session:
                found = browser_sessions.read(session, cookie)
            return Caller(found.rights, found.key_hash)

        name = f"session {keys.key_hash(cookie)}"  # a cookie is no key
        return await self._found(name, look_up, address=address)

    async def _found(self, name: str, look_up: Callable[[], Caller], *, address: str) -> Caller:
        """Who has what is called so; looked up unless that was done just before.

        What is not valid any more is forgotten, and is tried like any unknown one from then on.
        """
        begun = time.monotonic()
        known = self._valid_before.get(name)
        if known is not None and begun < known.until:
            return known.caller
        try:
            if known is not None:
                found = await anyio.to_thread.run_sync(look_up, limiter=self._known_threads)
            else:
                async with self._unknown.place(address):
                    found = await anyio.to_thread.run_sync(look_up, limiter=self._unknown_threads)
        except Unauthorized:
            self._valid_before.pop(name, None)
            raise
        self._remember(name, found, until=begun + FRESH_SECONDS)
        return found

    def _remember(self, name: str, caller: Caller, *, until: float) -> None:
        self._valid_before[name] = _Known(caller, until)
        self._valid_before.move_to_end(name)
        if len(self._valid_before) > REMEMBERED:
            self._valid_before.popitem(last=False)


def bearer(header: str | None) -> str:
    """The key in an ``Authorization`` header. Raises ``Unauthorized``."""
    scheme, _, key = (header or "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise Unauthorized(MESSAGE)
    return key.strip()


def rights(session: Session, key: str) -> Rights:
    """What the key may do. Raises ``Unauthorized``."""
    try:
        return keys.authenticate(session, key=key)
    except Unauthorized as error:
        raise Unauthorized(MESSAGE) from error
