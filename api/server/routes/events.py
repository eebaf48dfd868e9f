"""What happens to a job, as it happens: server-sent events, for programs and for browsers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent
from sqlalchemy.orm import Session

from api.server import auth, event_tokens, schemas, signed_claims, sse
from api.server.dependencies import Existing, JobId, ProjectId, Shared, Transaction
from jobs.queries import jobs

router = APIRouter(prefix="/v1/jobs/{job_id}/events", tags=["jobs"])

LastEventId = Annotated[
    str | None,
    Header(pattern=sse.SEEN, description="The id of the last event that was seen."),
]
SeenBefore = Annotated[
    str | None,
    Query(
        alias="last_event_id",
        pattern=sse.SEEN,
        description="The same for a new `EventSource`, which cannot set a header; the header wins.",
    ),
]
Token = Annotated[
    str | None,
    Query(
        max_length=signed_claims.LONGEST,
        description="In place of a key: a token of this job from `POST …/events/token`.",
    ),
]


@dataclass(frozen=True)
class Watch:
    """A job and the last event of it that the client has seen; 0: none."""

    job_id: str
    project_id: str
    after: int


async def watch(
    *,
    job_id: JobId,
    request: Request,
    shared: Shared,
    token: Token = None,
    last_event_id: LastEventId = None,
    seen_before: SeenBefore = None,
) -> Watch:
    """Raises ``StreamOver`` where nothing would follow, before the stream begins."""
    seen = last_event_id or seen_before
    key = request.headers.get("authorization")

    def look_up(session: Session) -> str:
        if key is None and token is not None:
            project = event_tokens.rights(session, token, job_id=job_id).project_id
        else:
            project = auth.rights(session, auth.bearer(key)).project_id
        job = jobs.own_row(session, job_id, project_id=project)
        sse.check_unfinished(session, job, seen)
        return project

    return Watch(job_id, await shared.looks.run(look_up), after=sse.seen(seen))


@router.get(
    "",
    response_class=EventSourceResponse,
    responses={204: {"description": "The job has ended, and the client has seen that."}},
)
async def stream_events(
    watch: Annotated[Watch, Depends(watch)], shared: Shared
) -> AsyncIterator[ServerSentEvent]:
    """The job's history, then its progress each second or so, until it ends or ten minutes pass."""
    stream = sse.follow(shared.looks, watch.job_id, project_id=watch.project_id, after=watch.after)
    async with aclosing(stream):
        async for event in stream:
            yield event


@router.post("/token")
def create_event_token(
    *, view: Existing, request: Request, session: Transaction, project: ProjectId
) -> schemas.EventToken:
    """A token with which a browser's `EventSource` reads this job's events for five minutes."""
    key = auth.bearer(request.headers.get("authorization"))
    token = event_tokens.issue(session, key=key, project_id=project, job_id=view.job.id)
    return schemas.EventToken(
        token=token.text,
        expires_at=token.expires_at,
        url=f"/v1/jobs/{view.job.id}/events?token={token.text}",
    )
