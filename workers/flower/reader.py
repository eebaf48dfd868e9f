"""Work on the ledger in threads of its own: Tornado's loop never waits for Postgres or Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sqlalchemy.orm import Session
from tornado.web import HTTPError

from jobs.database import Sessions

T = TypeVar("T")

THREADS = 4
"""Also the connections to Postgres."""

MOST = 64
"""Pages that are read or wait for a thread; a page more is refused."""


class Reader:
    """A few threads and the reads that wait for them."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="ledger")
        self._under_way = 0

    async def read(self, work: Callable[[Session], T]) -> T:
        """The result of ``work`` in one transaction that changes nothing."""
        return await self.run(lambda: self._in_transaction(work))

    async def run(self, work: Callable[[], T]) -> T:
        """The result of ``work`` in a thread. Raises ``HTTPError`` if too much waits for one."""
        if self._under_way >= MOST:
            raise HTTPError(503, "too many pages are being read; try again in a moment")
        self._under_way += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._under_way -= 1

    def _in_transaction(self, work: Callable[[Session], T]) -> T:
        with self._sessions.begin() as session:
            return work(session)


class Writer(Reader):
    """The same for what operators do."""

    async def write(self, work: Callable[[Session], T]) -> T:
        """The result of ``work``, in one transaction that is committed."""
        return await self.read(work)
