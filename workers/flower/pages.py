"""The handlers of our tabs: each reads in a thread, then renders a template."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import structlog
from flower.utils.search import QuerySyntaxError
from flower.utils.tasks import search_tasks
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from tornado import web

from jobs import figures
from jobs.errors import NotFound
from jobs.kinds import BULK, KINDS
from jobs.ledger import interventions
from jobs.lookups import chunk_folds, clock
from jobs.orders import OF_POOLS, OrderAction
from jobs.queries import (
    all_jobs,
    backlog,
    capacity,
    chunks,
    events,
    occupancy,
    orders,
    refused_messages,
    runs,
)
from jobs.states import JobState
from workers.flower import job_rows, pool_rows
from workers.flower.collaborators import Collaborators
from workers.flower.job_search import JobSearch
from workers.flower.operator_handlers import OperatorHandler

log = structlog.get_logger()

T = TypeVar("T")

ROWS = 25
"""Jobs on a page of the listing."""

RUNS = 10
ERRORS = 10
TASKS = 50
EVENTS = 100

ORDERS = 20

JOB_ACTIONS: dict[str, Callable[..., None]] = {
    "pause": interventions.pause,
    "resume": interventions.resume,
    "cancel": interventions.cancel,
}
POSTED = (*JOB_ACTIONS, "release", "stop_run")
"""What the page of a job posts."""

POLICY = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
"""Of the content of our pages: nothing from elsewhere, and no script in a page."""


class Page(OperatorHandler):
    """A page of ours."""

    tab = ""

    def initialize(self, ours: Collaborators) -> None:
        self.ours = ours

    def check_xsrf_cookie(self) -> None:
        """Want the token of our forms in any case, which Flower does only beside a cookie."""
        super().check_xsrf_cookie()
        web.RequestHandler.check_xsrf_cookie(self)

    def set_default_headers(self) -> None:
        super().set_default_headers()
        self.set_header("Content-Security-Policy", POLICY)
        self.set_header("Cache-Control", "no-store")
        self.set_header("Referrer-Policy", "same-origin")

    async def ledger(self, work: Callable[[Session], T]) -> T:
        """Read the ledger. Raises ``HTTPError``: 404, or 503 if it does not answer in time."""
        try:
            return await self.ours.reader.read(work)
        except NotFound as missing:
            raise web.HTTPError(404, missing.message) from missing
        except SQLAlchemyError as error:
            log.warning("a page cannot be read", path=self.request.path, error=str(error))
            raise web.HTTPError(503, "Postgres does not answer in time") from error

    def show(self, template: str, **values: Any) -> None:
        """Render a template of ours."""
        may_act = self.ours.writer is not None
        self.render(template, tab=self.tab, figures=figures, may_act=may_act, **values)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Say what is wrong; a refused login is Flower's business."""
        error = (kwargs.get("exc_info") or (None, None, None))[1]
        if status_code == 401 or not isinstance(error, web.HTTPError):  # noqa: PLR2004
            super().write_error(status_code, **kwargs)
            return
        if not hasattr(self, "_current_user"):
            self.current_user = None
        self.show("trouble.html", status=status_code, message=error.get_message())


class JobsPage(Page):
    """Every job, the newest first."""

    tab = "jobs"

    @web.authenticated
    async def get(self) -> None:
        try:
            search = JobSearch.read(self._given())
        except ValueError as error:
            raise web.HTTPError(400, str(error)) from error
        found, more = await self.ledger(
            lambda session: all_jobs.page(
                session, limit=ROWS, after=search.after or None, wanted=search.filter
            )
        )
        rows = [job_rows.listed(each) for each in found]
        self.show(
            "jobs.html",
            rows=rows,
            search=search,
            older=search.address(after=rows[-1].id) if more else None,
            newest=search.address(after=""),
            kinds=list(KINDS),
            states=list(JobState),
        )

    def _given(self) -> dict[str, list[str]]:
        names = self.request.query_arguments
        return {name: self.get_query_arguments(name, strip=False) for name in names}


class JobPage(Page):
    """One job: its chunks, errors, tasks, runs and history."""

    tab = "jobs"

    @web.authenticated
    async def get(self, job_id: str) -> None:
        found = await self.ledger(lambda session: _look(session, job_id))
        view = found.view
        errors = {group.code: group.rows for group in view.row_errors}
        self.show(
            "job.html",
            job=job_rows.row(view, errors),
            view=view,
            bulk=view.job.kind in BULK,
            moments=_moments(view.job),
            held=[job_rows.held(each, now=view.now) for each in found.held],
            by_worker=_by_worker(found.held),
            failed=found.failed,
            folded=found.folded,
            runs=[job_rows.run(each) for each in found.runs],
            more_runs=found.more_runs,
            curves=view.training.last if view.training else [],
            events=[job_rows.event(each) for each in found.events],
            tasks=self._tasks(job_id),
            actions=job_rows.actions(view.job.state),
        )

    @web.authenticated
    async def post(self, job_id: str) -> None:
        operator, action = self.operator, self.get_body_argument("action", "")
        if action == "release":
            await self.release(self.get_body_argument("task", ""))
        elif action == "stop_run":
            run = self.get_body_argument("run", "")
            if not run.isdecimal():
                raise web.HTTPError(400, "run must be the number of a run")
            await self.change(
                lambda session: interventions.stop_run(
                    session, job_id, number=int(run), by=operator
                )
            )
        elif action in JOB_ACTIONS:
            await self.change(lambda session: JOB_ACTIONS[action](session, job_id, by=operator))
        else:
            raise web.HTTPError(400, f"action must be one of {', '.join(POSTED)}")
        self.redirect(self.reverse_url("job", job_id), status=303)

    def _tasks(self, job_id: str) -> list[dict[str, Any]]:
        """Flower's tasks of the job, the newest first; memory alone is searched, by an index."""
        tasks = self.application.events.state.tasks
        try:
            page = search_tasks(
                self.application.events,
                search=f'args:"{job_id}"',
                sort_by="received",
                descending=True,
                limit=TASKS,
            )
        except QuerySyntaxError:
            return []
        known = getattr(tasks, "data", tasks)
        found = (known.get(task_id) for task_id in page.task_ids)
        return [_task(self.format_task(task)) for task in found if task is not None]


@dataclass(frozen=True)
class _Found:
    view: Any
    held: list[occupancy.HeldChunk]
    failed: list[chunks.FailedChunk]
    folded: bool  # at least some of its chunks are no rows any more
    runs: list[runs.RunView]
    more_runs: bool
    events: list[Any]


def _look(session: Session, job_id: str) -> _Found:
    view = all_jobs.get(session, job_id)
    bulk = view.job.kind in BULK
    of_job, more = ([], False) if bulk else runs.page(session, job_id, limit=RUNS)
    return _Found(
        view=view,
        held=occupancy.chunks(session, job_id=job_id) if bulk else [],
        failed=chunks.failed(session, job_id, limit=ERRORS) if bulk else [],
        folded=bulk and chunk_folds.has_any(session, job_id),
        runs=of_job,
        more_runs=more,
        events=events.latest(session, job_id, limit=EVENTS),
    )


def _moments(job: Any) -> list[tuple[str, str]]:
    moments = (
        ("accepted", job.created_at),
        ("began", job.started_at),
        ("planned", job.planned_at),
        ("ended", job.finished_at),
    )
    return [(name, figures.moment(at)) for name, at in moments if at is not None]


def _by_worker(held: list[occupancy.HeldChunk]) -> list[tuple[str, int]]:
    numbers: dict[str, int] = {}
    for chunk in held:
        numbers[chunk.worker] = numbers.get(chunk.worker, 0) + 1
    return sorted(numbers.items())


def _task(task: Any) -> dict[str, Any]:
    return {
        "uuid": task.uuid,
        "words": task.args,
        "state": task.state,
        "badge": job_rows.task_badge(task.state),
        "why": (getattr(task, "result", "") or "") if task.state != "SUCCESS" else "",
        "worker": task.worker.hostname if task.worker else "",
        "received": task.received,
    }


class PoolsPage(Page):
    """Workers and hosts, and what each does now."""

    tab = "pools"

    @web.authenticated
    async def get(self) -> None:
        workers, hosts, waiting = await self.ledger(_look_at_pools)
        self.show(
            "pools.html",
            pools=pool_rows.pools(workers, hosts, backlog=waiting),
            workers=workers,
            hosts=hosts,
        )


def _look_at_pools(
    session: Session,
) -> tuple[list[pool_rows.WorkerRow], list[pool_rows.HostRow], dict[str, backlog.Backlog]]:
    now = clock.now(session)
    workers = pool_rows.workers(
        capacity.workers(session),
        chunks=occupancy.chunks(session),
        steps=occupancy.steps(session),
        now=now,
    )
    hosts = pool_rows.hosts(occupancy.hosts(session), now=now)
    return workers, hosts, backlog.of_pools(session)


@dataclass(frozen=True)
class _WorkerNow:
    worker: pool_rows.WorkerRow | None
    host: pool_rows.HostRow | None
    orders: list[pool_rows.OrderRow]


class WorkerPage(Page):
    """One worker or training host: what it does now, and what operators asked of it."""

    tab = "pools"

    @web.authenticated
    async def get(self, name: str) -> None:
        found = await self.ledger(lambda session: _look_at_worker(session, name))
        self.show(
            "orders.html",
            name=name,
            worker=found.worker,
            host=found.host,
            orders=found.orders,
            known=name in self.application.events.state.workers,
        )

    @web.authenticated
    async def post(self, name: str) -> None:
        given = self.get_body_argument("action", "")
        if given not in OFFERED:
            raise web.HTTPError(400, f"action must be one of {', '.join(OFFERED)}")
        await self.place(name, OrderAction(given), number=self.get_body_argument("n", "1"))
        self.redirect(self.reverse_url("orders", name), status=303)


OFFERED = (OrderAction.SHUT_DOWN, *sorted(OF_POOLS))
"""What the page of a worker posts."""


def _look_at_worker(session: Session, name: str) -> _WorkerNow:
    workers, hosts, _ = _look_at_pools(session)
    now = clock.now(session)
    found = orders.latest(session, name, limit=ORDERS)
    worker = next((each for each in workers if each.name == name), None)
    host = next((each for each in hosts if each.worker == name), None)
    if worker is None and host is None and not found:
        raise NotFound(f"no worker {name!r} is on record")
    return _WorkerNow(worker, host, [pool_rows.order(each, now=now) for each in found])


class QueuesPage(Page):
    """What waits, as the ledger and as Redis have it."""

    tab = "queues"

    @web.authenticated
    async def get(self) -> None:
        found = await self.ledger(_look_at_queues)
        lengths, trouble = await self._lengths()
        rows = pool_rows.queues(
            pools=found.pools,
            planners=found.planners,
            hosts=found.hosts,
            slots=found.slots,
            lengths=lengths,
            window=self.ours.settings.dispatch_window,
            now=found.now,
        )
        self.show("queues.html", rows=rows, trouble=trouble, refused=found.refused, found=found)

    async def _lengths(self) -> tuple[Mapping[str, int | None], str]:
        """Of the queues in Redis, and what is wrong with it; the ledger is shown in any case."""
        try:
            return await self.ours.reader.run(self.ours.queues.lengths), ""
        except (RedisError, OSError) as error:
            return {}, f"Redis does not answer: {error}"


@dataclass(frozen=True)
class _Queues:
    now: datetime
    pools: dict[str, backlog.Backlog]
    planners: backlog.Backlog
    hosts: dict[str, backlog.Backlog]
    slots: dict[str, int]
    refused: list[Any]
    control_turned_at: datetime | None
    broker_error: str | None


def _look_at_queues(session: Session) -> _Queues:
    around = capacity.look(session)
    return _Queues(
        now=clock.now(session),
        pools=backlog.of_pools(session),
        planners=backlog.of_planners(session),
        hosts=backlog.of_hosts(session),
        slots=capacity.slots_by_pool(session),
        refused=refused_messages.latest(session, limit=ERRORS),
        control_turned_at=around.control_turned_at,
        broker_error=around.broker_error,
    )
