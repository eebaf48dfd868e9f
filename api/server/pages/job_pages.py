"""The list of jobs, and a job."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Depends, Query, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from sqlalchemy.orm import Session
from starlette.responses import RedirectResponse

from api.server import schemas, sse
from api.server.dependencies import After, Bulk, JobId, KeyHash, ProjectId, Shared, Transaction
from api.server.pages import forms, page_route, rendering
from api.server.pages.job_search import Search
from api.server.routes import results
from api.server.routes.events import LastEventId
from jobs import folding, ids, kinds
from jobs.decisions.job_actions import JobAction, JobFacts, refusal
from jobs.ledger import controls, deletions
from jobs.lookups import row_errors
from jobs.queries import (
    checkpoints,
    chunks,
    curves,
    events,
    job_filters,
    job_selection,
    jobs,
    occupancy,
    runs,
    why,
)
from jobs.queries.jobs import JobView
from jobs.states import FINAL

router = page_route.router()

PAGE_JOBS = 50
SHOWN_LABELS = 20
SHOWN_CHUNKS = 20
SHOWN_EVENTS = 30
SHOWN_RUNS = 10
SHOWN_RESULTS = 20

CURVE_PAGE, MOST_POINTS, SHOWN_POINTS = 5_000, 50_000, 1_000
"""Points of a curve: read at a time, read at all, and sent."""


@router.get("/")
def list_jobs(
    *,
    request: Request,
    search: Search,
    session: Transaction,
    project: ProjectId,
    after: After = None,
) -> Response:
    """Jobs, newest first, by the filters of the address."""
    wanted = search.wanted
    views, more = jobs.page(
        session, project_id=project, limit=PAGE_JOBS, after=after, wanted=wanted
    )
    failing = [view.job.id for view in views if view.counts.rows_failed]
    return rendering.page(
        request,
        "jobs.html",
        jobs=[schemas.Job.of(view) for view in views],
        now=views[0].now if views else None,
        errors=row_errors.rows_by_code(session, failing) if failing else {},
        more=more,
        after=after,
        total=job_filters.count(session, project_id=project, wanted=wanted),
        glance=job_selection.at_a_glance(session, project_id=project),
        search=search,
        kinds=list(kinds.KINDS),
    )


@router.get("/jobs")
def redirect_to_list() -> Response:
    """The list is at ``/``."""
    return RedirectResponse("/", status_code=HTTPStatus.MOVED_PERMANENTLY)


@dataclass(frozen=True)
class _Around:
    """What a job's page shows besides the job."""

    held: list[occupancy.HeldChunk]
    failed: list[chunks.FailedChunk]
    runs: list[schemas.Run]
    checkpoints: list[schemas.Checkpoint]
    events: list[Any]


@router.get("/jobs/{job_id}")
def show_job(job_id: JobId, request: Request, session: Transaction, project: ProjectId) -> Response:
    """One job: how far it is, why it waits, what failed, and where its time went."""
    view = jobs.get(session, job_id, project_id=project)
    return rendering.page(
        request,
        "job.html",
        job=schemas.Job.of(view),
        now=view.now,
        why=schemas.Why.of(why.look(session, job_id, project_id=project)),
        around=_around(session, view),
        labels=list(view.histogram.items())[:SHOWN_LABELS],
        more_labels=max(0, len(view.histogram) - SHOWN_LABELS),
        actions=_possible(view),
        curves=[] if view.training is None else [schemas.Point.of(p) for p in view.training.last],
    )


def _around(session: Session, view: JobView) -> _Around:
    job_id, bulk = view.job.id, view.training is None
    found = [] if bulk else runs.page(session, job_id, limit=SHOWN_RUNS)[0]
    kept = [] if bulk else checkpoints.listing(session, job_id)
    return _Around(
        held=occupancy.chunks(session, job_id=job_id, limit=SHOWN_CHUNKS) if bulk else [],
        failed=chunks.failed(session, job_id, limit=SHOWN_CHUNKS) if bulk else [],
        runs=[schemas.Run.of(run) for run in found],
        checkpoints=[schemas.Checkpoint.of(each) for each in kept if each.deleted_at is None],
        events=events.latest(session, job_id, limit=SHOWN_EVENTS),
    )


def _possible(view: JobView) -> list[JobAction]:
    facts = JobFacts(
        state=view.job.state,
        trains=view.training is not None,
        kept=view.job.kept,
        to_retry=bool(view.counts.rows_failed or (view.job.output or {}).get("damage")),
    )
    return [action for action in JobAction if refusal(action, facts) is None]


@router.get("/jobs/{job_id}/results")
def show_results(
    job: Bulk,
    request: Request,
    shared: Shared,
    after: Annotated[int | None, Query(ge=0, le=2**62)] = None,
) -> Response:
    """A part of the page of a job: result rows, while it runs too, up to the first gap."""
    found = results.list_results(job, shared, limit=SHOWN_RESULTS, after=after)
    columns = list(dict.fromkeys(name for row in found.data for name in row))
    return rendering.page(
        request,
        "results.html",
        job_id=job.job.id,
        rows=found.data,
        columns=[name for name in columns if any(row.get(name) is not None for row in found.data)],
        next=None if found.complete else found.next,
        after=after,
    )


@router.get("/jobs/{job_id}/curves")
def show_curves(job_id: JobId, session: Transaction, project: ProjectId) -> dict[str, Any]:
    """The curves of a training job for its chart: of each name its steps and its values."""
    view = jobs.get(session, job_id, project_id=project)
    names = [point.name for point in view.training.last] if view.training else []
    series = {name: _curve(session, job_id, name=name) for name in names}
    return {"series": series, "ended": view.job.state in FINAL}


def _curve(session: Session, job_id: str, *, name: str) -> list[list[float | None]]:
    """Steps and values, of a long curve each second, third … point, and always the last."""
    points: list[schemas.Point] = []
    after, more = -1, True
    while more and len(points) < MOST_POINTS:
        found, more = curves.page(session, job_id, name=name, after=after, limit=CURVE_PAGE)
        points += [schemas.Point.of(point) for point in found]
        after = points[-1].step if points else after
    every = -(-len(points) // SHOWN_POINTS) or 1
    shown = points[(len(points) - 1) % every :: every] if points else []
    return [[point.step for point in shown], [point.value for point in shown]]


@dataclass(frozen=True)
class _Watch:
    project_id: str
    after: int


async def _watch(
    job_id: JobId, shared: Shared, project: ProjectId, last_event_id: LastEventId = None
) -> _Watch:
    """Raises ``NotFound``, and ``StreamOver`` where nothing would follow."""

    def look_up(session: Session) -> None:
        job = jobs.own_row(session, job_id, project_id=project)
        sse.check_unfinished(session, job, last_event_id)

    await shared.looks.run(look_up)
    return _Watch(project, sse.seen(last_event_id))


@router.get("/jobs/{job_id}/events", response_class=EventSourceResponse)
async def stream_progress(
    job_id: JobId, watch: Annotated[_Watch, Depends(_watch)], shared: Shared
) -> AsyncIterator[ServerSentEvent]:
    """The head of the page of a job, about each second; ``over`` when it has ended."""
    stream = sse.follow(shared.looks, job_id, project_id=watch.project_id, after=watch.after)
    async with aclosing(stream):
        async for event in stream:
            if event.event == "progress" and event.raw_data is not None:
                job = schemas.Progress.model_validate_json(event.raw_data)
                head = rendering.fragment("progress.html", job=job)
                yield ServerSentEvent(event="progress", id=event.id, raw_data=head)
                if job.state in FINAL:
                    yield ServerSentEvent(event="over", raw_data="over")
            elif event.event == "state":
                yield ServerSentEvent(event="changed", id=event.id, raw_data="changed")
            elif event.comment is not None:
                yield event


@router.get("/jobs/{job_id}/{action}")
def ask(
    *,
    job_id: JobId,
    action: JobAction,
    request: Request,
    session: Transaction,
    project: ProjectId,
) -> Response:
    """Whether it is really meant."""
    view = jobs.get(session, job_id, project_id=project)
    return rendering.page(
        request, "confirm_job.html", job=schemas.Job.of(view), action=action, now=view.now
    )


@router.post("/jobs/{job_id}/{action}", dependencies=forms.CHECKED)
def act(
    job_id: JobId, action: JobAction, shared: Shared, project: ProjectId, key: KeyHash
) -> Response:
    """Do it. Raises what the ledger raises."""
    do(action, job_id, shared=shared, project_id=project, key=key)
    target = "/" if action is JobAction.DELETE else f"/jobs/{job_id}"
    return RedirectResponse(target, status_code=HTTPStatus.SEE_OTHER)


def do(action: JobAction, job_id: str, *, shared: Shared, project_id: str, key: str) -> None:
    """An action in transactions of its own. Raises what the ledger raises."""
    if action is JobAction.RETRY:
        again = functools.partial(controls.retry, job_id=job_id, project_id=project_id)
        folding.retried(shared.sessions, shared.store, again)
        return
    of_action: dict[JobAction, Callable[..., None]] = {
        JobAction.CANCEL: controls.cancel,
        JobAction.PAUSE: functools.partial(controls.pause, by=ids.of_key(key)),
        JobAction.RESUME: controls.resume,
        JobAction.DELETE: deletions.delete_job,
    }
    with shared.sessions.begin() as session:
        of_action[action](session, job_id, project_id=project_id)
    if action is JobAction.DELETE:
        shared.purge_thread.wake()
