"""A job's life as server-sent events.

Events of the ledger carry their id, so that ``Last-Event-ID`` resumes behind it. The last progress
of an ended job has the id of the last event and ``-end``: a client that has seen it has seen all,
and is answered 204, after which a browser's ``EventSource`` does not come back. Any other
``progress`` has no id and is sent about each second; of a job of very many chunks, over all of
which a look adds up, less often. How jobs are looked at: ``api.server.looks``.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator

from fastapi.sse import ServerSentEvent
from sqlalchemy.orm import Session

from api.server import errors
from api.server.looks import Look, Looks
from jobs.errors import ControlFlow, NotFound
from jobs.queries import events
from jobs.states import FINAL
from jobs.tables import Event, Job

LONGEST_SECONDS = 600.0
"""A stream ends after this long; clients come back with the last id that they saw."""

RECONNECT_MILLISECONDS = 1000

END = "-end"
SEEN = rf"^\d{{1,18}}({END})?$"
"""A ``Last-Event-ID``."""


class StreamOver(ControlFlow):
    """Nothing will follow what the client has seen."""


async def follow(
    looks: Looks, job_id: str, *, project_id: str, after: int
) -> AsyncGenerator[ServerSentEvent]:
    """What happened since the event ``after``, then what happens, until the job has ended."""
    end = time.monotonic() + LONGEST_SECONDS
    yield ServerSentEvent(comment="nightshift", retry=RECONNECT_MILLISECONDS)
    look: Look | None = None
    with looks.following(job_id, project_id=project_id) as job:
        while look is None or (not look.ended and time.monotonic() < end):
            try:
                look = await job.look(seen=look, after=after)
                async for event in job.history(look, after=after):
                    after = event.id
                    yield _past(event)
            except (*errors.DATABASE_DOWN, NotFound):
                return  # the client comes back, and its first look answers 503, or 404: deleted
            end_id = f"{after}{END}" if look.ended else None
            yield ServerSentEvent(event="progress", id=end_id, raw_data=look.progress)


def seen(last_event_id: str | None) -> int:
    """The last event that the client has seen; 0: none."""
    return int((last_event_id or "0").removesuffix(END))


def check_unfinished(session: Session, job: Job, last_event_id: str | None) -> None:
    """Raise ``StreamOver`` if the job has ended and the client has seen that."""
    ended = job.state in FINAL and (last_event_id or "").endswith(END)
    if ended and not events.since(session, job.id, after=seen(last_event_id), limit=1):
        raise StreamOver


def _past(event: Event) -> ServerSentEvent:
    data = {"at": event.at.isoformat(), **event.data}
    return ServerSentEvent(event=event.type, id=str(event.id), data=data)
