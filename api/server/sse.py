"""A job's life as server-sent events.

Events of the ledger carry their id, so that ``Last-Event-ID`` resumes behind it. The last progress
of an ended job has the id of the last event and ``-end``: a client that has seen it has seen all,
and is answered 204, after which a browser's ``EventSource`` does not come back. Any other
``progress`` has no id and is sent about each second; of a job of very many chunks, over all of
which a look adds up, less often. Between two looks the stream holds no database connection.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import anyio
import anyio.to_thread
from fastapi.sse import ServerSentEvent
from sqlalchemy.orm import Session

from api.server import errors, schemas
from jobs.database import Sessions
from jobs.errors import ControlFlow, NotFound
from jobs.queries import events, jobs
from jobs.queries.jobs import JobView
from jobs.states import FINAL
from jobs.tables import Event

SHORTEST_PAUSE, LONGEST_PAUSE = 1.0, 10.0
CHUNKS_PER_SECOND = 10_000
"""What a stream adds up at most, while that leaves its pauses within those limits in seconds."""

LONGEST_SECONDS = 600.0
"""A stream ends after this long; clients come back with the last id that they saw."""

LOOKS_AT_ONCE = 2
"""Looks of all streams of a process that are under way at a time; the others wait for theirs."""

RECONNECT_MILLISECONDS = 1000
BATCH = 200


END = "-end"
SEEN = rf"^\d{{1,18}}({END})?$"
"""A ``Last-Event-ID``."""


class StreamOver(ControlFlow):
    """Nothing will follow what the client has seen."""


@dataclass(frozen=True)
class _Look:
    history: list[Event]
    view: JobView

    @property
    def last(self) -> bool:
        """Nothing will follow: the job has ended and its history is sent."""
        return self.view.job.state in FINAL and len(self.history) < BATCH


class Looks:
    """The threads in which the streams of one process look at their jobs."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._threads = anyio.CapacityLimiter(LOOKS_AT_ONCE)

    async def look(self, job_id: str, *, project_id: str, after: int) -> _Look:
        """What happened since the event ``after``, and how the job is."""
        look = functools.partial(_look, self._sessions, job_id, project_id=project_id, after=after)
        return await anyio.to_thread.run_sync(look, limiter=self._threads)


async def follow(
    looks: Looks, job_id: str, *, project_id: str, after: int
) -> AsyncIterator[ServerSentEvent]:
    """What happened since the event ``after``, then what happens, until the job has ended."""
    end = time.monotonic() + LONGEST_SECONDS
    yield ServerSentEvent(comment="nightshift", retry=RECONNECT_MILLISECONDS)
    while True:
        try:
            look = await looks.look(job_id, project_id=project_id, after=after)
        except (*errors.DATABASE_DOWN, NotFound):
            return  # the client comes back, and its first look answers 503, or 404: it was deleted
        for event in look.history:
            after = event.id
            yield _past(event)
        if len(look.history) == BATCH:
            continue
        end_id = f"{after}{END}" if look.last else None
        yield ServerSentEvent(event="progress", id=end_id, data=schemas.Progress.of(look.view))
        if look.last or time.monotonic() > end:
            return
        await asyncio.sleep(pause(look.view.counts.chunks))


def seen(last_event_id: str | None) -> int:
    """The last event that the client has seen; 0: none."""
    return int((last_event_id or "0").removesuffix(END))


def check_unfinished(session: Session, view: JobView, last_event_id: str | None) -> None:
    """Raise ``StreamOver`` if the job has ended and the client has seen that."""
    ended = view.job.state in FINAL and (last_event_id or "").endswith(END)
    if ended and not events.since(session, view.job.id, after=seen(last_event_id), limit=1):
        raise StreamOver


def pause(chunks: int) -> float:
    """Seconds between two looks at a job with this many chunks."""
    return min(LONGEST_PAUSE, max(SHORTEST_PAUSE, chunks / CHUNKS_PER_SECOND))


def _look(sessions: Sessions, job_id: str, *, project_id: str, after: int) -> _Look:
    """State first, history second: an ended job's history is then whole."""
    with sessions.begin() as session:
        view = jobs.get(session, job_id, project_id=project_id)
        return _Look(history=events.since(session, job_id, after=after, limit=BATCH), view=view)


def _past(event: Event) -> ServerSentEvent:
    data = {"at": event.at.isoformat(), **event.data}
    return ServerSentEvent(event=event.type, id=str(event.id), data=data)
