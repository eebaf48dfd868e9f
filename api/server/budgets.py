"""How much of the process one caller may hold at a time (promise P12).

A budget has places for all callers together and a limit for each of them, so that one caller never
takes the last place. Beyond the limit a request waits in a line of its caller's own, or is refused
with 429 and a time to come back.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from jobs.errors import NightshiftError

RETRY_SECONDS = 5


class TooMany(NightshiftError):
    """The caller holds as much as it may, or all callers together do."""

    status = 429
    code = "too_many_requests"
    retry_after = RETRY_SECONDS


class Budget:
    """Places of one kind; used by one event loop alone.

    With ``waits`` a caller over its limit, or a full budget, makes the request wait: callers take
    turns, and each caller's requests keep their order.
    """

    def __init__(self, what: str, *, total: int, per_caller: int, waits: bool = False) -> None:
        """``what``: the kind of requests, as a message names it."""
        self.total = total
        self._what = what
        self._per_caller = per_caller
        self._waits = waits
        self._used = 0
        self._of: Counter[str] = Counter()
        self._lines: dict[str, deque[asyncio.Future[None]]] = defaultdict(deque)

    @asynccontextmanager
    async def place(self, caller: str) -> AsyncIterator[None]:
        """Hold one place. Raises ``TooMany``."""
        await self._enter(caller)
        try:
            yield
        finally:
            self._leave(caller)

    def check(self, caller: str) -> None:
        """Raise ``TooMany`` if ``place`` would at this moment."""
        if not self._waits and not self._free(caller):
            raise self._refusal(caller)

    async def _enter(self, caller: str) -> None:
        if caller not in self._lines and self._free(caller):
            self._take(caller)
        elif self._waits:
            await self._wait(caller)
        else:
            raise self._refusal(caller)

    async def _wait(self, caller: str) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lines[caller].append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._drop(caller, turn)
            else:  # its turn had come: the place goes to the next
                self._leave(caller)
            raise

    def _leave(self, caller: str) -> None:
        self._used -= 1
        self._of[caller] -= 1
        if not self._of[caller]:
            del self._of[caller]
        self._call_next()

    def _call_next(self) -> None:
        """Give free places to those that wait, one caller after the other."""
        while next_one := next(filter(self._free, self._lines), None):
            line = self._lines.pop(next_one)
            turn = line.popleft()
            if line:
                self._lines[next_one] = line  # behind the other callers
            if not turn.done():
                self._take(next_one)
                turn.set_result(None)

    def _drop(self, caller: str, turn: asyncio.Future[None]) -> None:
        line = self._lines.get(caller)
        if line and turn in line:
            line.remove(turn)
            if not line:
                del self._lines[caller]

    def _free(self, caller: str) -> bool:
        return self._used < self.total and self._of[caller] < self._per_caller

    def _take(self, caller: str) -> None:
        self._used += 1
        self._of[caller] += 1

    def _refusal(self, caller: str) -> TooMany:
        if self._of[caller] >= self._per_caller:
            return TooMany(
                f"{self._per_caller} {self._what} may be under way at a time, and this client "
                f"has that many; try again in {RETRY_SECONDS} seconds"
            )
        return TooMany(
            f"this server has {self.total} {self._what} under way, as many as it may; "
            f"try again in {RETRY_SECONDS} seconds",
            code="server_busy",
        )
