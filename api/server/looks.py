"""How the event streams of one process look at their jobs, without taking it from others (P12).

The streams of one job share each look, one a second or so; of a job of very many chunks, over all
of which a look adds up, less often. Looks of one project take turns, and after each of them the
project rests for four times as long as it took. Between two looks nothing holds a connection.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import anyio
import anyio.to_thread
from sqlalchemy.orm import Session

from api.server import schemas
from jobs.database import Sessions
from jobs.queries import events, jobs
from jobs.states import FINAL
from jobs.tables import Event

T = TypeVar("T")

SHORTEST_PAUSE, LONGEST_PAUSE = 1.0, 10.0
CHUNKS_PER_SECOND = 10_000
"""What looks at one job add up at most, while that leaves its pauses within those limits."""

LOOKS_AT_ONCE = 2
"""Threads, and connections to Postgres, of all streams of a process."""

REST = 4
"""A project rests this many times as long as its last look took, at most the longest pause."""

BATCH = 200
"""Most events that are read at a time."""


@dataclass(frozen=True)
class Look:
    """How a job was at one moment, for all its streams."""

    progress: str  # JSON
    ended: bool
    chunks: int
    history: Sequence[Event]  # behind ``after``, at most a batch
    after: int
    seconds: float  # that it took


class Looks:
    """The jobs that streams of this process follow; used by its event loop."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._threads = anyio.CapacityLimiter(LOOKS_AT_ONCE)
        self._projects: dict[str, _Project] = {}

    async def run(self, work: Callable[[Session], T]) -> T:
        """Do this in a transaction, in one of the threads."""

        def run() -> T:
            with self._sessions.begin() as session:
                return work(session)

        return await anyio.to_thread.run_sync(run, limiter=self._threads)

    @contextmanager
    def following(self, job_id: str, *, project_id: str) -> Iterator[FollowedJob]:
        """The job, shared with all who follow it at this time."""
        project = self._projects.setdefault(project_id, _Project())
        if job_id not in project.jobs:
            project.jobs[job_id] = FollowedJob(self, project, job_id, project_id)
        job = project.jobs[job_id]
        job.streams += 1
        try:
            yield job
        finally:
            job.streams -= 1
            if not job.streams:
                job.forget()
                del project.jobs[job_id]
            if not project.jobs:  # its rest goes on when it comes back soon
                loop = asyncio.get_running_loop()
                loop.call_later(LONGEST_PAUSE, self._forget, project_id)

    def _forget(self, project_id: str) -> None:
        if (project := self._projects.get(project_id)) and not project.jobs:
            del self._projects[project_id]


@dataclass
class _Project:
    """One that has streams, or had some lately."""

    jobs: dict[str, FollowedJob] = field(default_factory=dict)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    rests_until: float = 0.0


class FollowedJob:
    """A job that has streams."""

    def __init__(self, looks: Looks, project: _Project, job_id: str, project_id: str) -> None:
        self.streams = 0
        self._looks = looks
        self._project = project
        self._job_id = job_id
        self._project_id = project_id
        self._latest: Look | None = None
        self._due = 0.0
        self._next: asyncio.Task[Look] | None = None

    async def look(self, *, seen: Look | None, after: int) -> Look:
        """The latest look if the stream has not seen it, else the next. Raises ``NotFound``."""
        latest = self._latest
        if latest is not None and latest is not seen and not latest.ended:
            return latest
        if self._next is None:
            self._next = asyncio.create_task(self._look_when_due(after))
            self._next.add_done_callback(self._looked)
        return await asyncio.shield(self._next)

    async def history(self, look: Look, *, after: int) -> AsyncIterator[Event]:
        """Events behind the id ``after``, at least up to the time of the look."""
        batch: Sequence[Event] = ()
        missing = look.after > after
        if not missing:
            batch = [event for event in look.history if event.id > after]
            missing = len(look.history) == BATCH
        for event in batch:
            yield event
        while missing:
            seen = batch[-1].id if batch else after
            batch = await self._looks.run(
                lambda session, seen=seen: events.since(  # type: ignore[misc]
                    session, self._job_id, after=seen, limit=BATCH
                )
            )
            missing = len(batch) == BATCH
            for event in batch:
                yield event

    def forget(self) -> None:
        """End the look for which no stream waits any more."""
        if self._next is not None:
            self._next.cancel()

    async def _look_when_due(self, after: int) -> Look:
        if self._latest is not None:
            after = max([self._latest.after, *(event.id for event in self._latest.history)])
        await _sleep_until(self._due)
        async with self._project.turn:
            await _sleep_until(self._project.rests_until)
            looking = self._looks.run(
                lambda session: _look(
                    session, self._job_id, project_id=self._project_id, after=after
                )
            )
            look = await asyncio.shield(looking)  # a look that has begun keeps its thread
            rest = min(REST * look.seconds, LONGEST_PAUSE)
            self._project.rests_until = time.monotonic() + rest
        self._latest = look
        self._due = time.monotonic() + pause(look.chunks)
        return look

    def _looked(self, task: asyncio.Task[Look]) -> None:
        self._next = None
        if not task.cancelled():
            task.exception()  # retrieved, whether a stream is left to raise it in or not


def pause(chunks: int) -> float:
    """Seconds between two looks at a job with this many chunks."""
    return min(LONGEST_PAUSE, max(SHORTEST_PAUSE, chunks / CHUNKS_PER_SECOND))


def _look(session: Session, job_id: str, *, project_id: str, after: int) -> Look:
    """State first, history second: an ended job's history is then whole."""
    begun = time.monotonic()
    view = jobs.get(session, job_id, project_id=project_id)
    history = events.since(session, job_id, after=after, limit=BATCH)
    return Look(
        progress=schemas.Progress.of(view).model_dump_json(),
        ended=view.job.state in FINAL,
        chunks=view.counts.chunks,
        history=history,
        after=after,
        seconds=time.monotonic() - begun,
    )


async def _sleep_until(moment: float) -> None:
    await asyncio.sleep(max(0.0, moment - time.monotonic()))
