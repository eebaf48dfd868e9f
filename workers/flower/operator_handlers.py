"""What operators do in Flower, done to the ledger: Flower's own API, and what our pages post.

Workers take no orders from the broker. So each handler of Flower's that would send one is replaced:
it writes an order, which the worker reads with its next heartbeat, or releases the work itself. An
order that has no meaning here is answered with 501 and a reason. Decision 0053.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, assert_never

import structlog
from flower.api import BaseApiHandler
from flower.utils.tasks import get_task_by_id
from flower.views import BaseHandler
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from tornado import web

from jobs.errors import NightshiftError
from jobs.ledger import interventions, orders
from jobs.orders import MOST_PROCESSES, WORDS, OrderAction
from workers.flower import task_reference
from workers.flower.collaborators import Collaborators
from workers.flower.task_reference import ChunkTask, RankTask, StepTask

log = structlog.get_logger()

T = TypeVar("T")

LONGEST_NAME = 100
"""Characters of a login that are kept."""

RUNS = "STARTED"
"""Flower's state of a task that a process works on."""


class OperatorHandler(BaseHandler):  # type: ignore[misc]
    """A handler that changes something in the ledger."""

    ours: Collaborators

    @property
    def operator(self) -> str:
        """Who is logged in: the user of the password, or the address that OAuth2 has confirmed."""
        if isinstance(self.current_user, str):
            return self.current_user[:LONGEST_NAME]
        return _basic_user(self.request.headers.get("Authorization", ""))[:LONGEST_NAME]

    async def change(self, work: Callable[[Session], T]) -> T:
        """Do it in one transaction. Raises ``HTTPError`` with the reason if it cannot be done."""
        writer = self.ours.writer
        if writer is None:
            raise web.HTTPError(403, "Read only mode is enabled")
        try:
            return await writer.write(work)
        except NightshiftError as refused:
            raise web.HTTPError(refused.status, refused.message) from refused
        except SQLAlchemyError as error:
            log.warning("an order cannot be written", path=self.request.path, error=str(error))
            raise web.HTTPError(503, "Postgres does not answer in time; nothing is done") from error

    async def place(self, worker: str, action: OrderAction, *, number: str) -> str:
        """Ask a worker; returns what was asked, in words. ``number``: of processes, as given."""
        of_size = action in {OrderAction.GROW, OrderAction.SHRINK}
        processes = _processes(number) if of_size else None
        operator = self.operator
        await self.change(
            lambda session: orders.place(session, worker, action, by=operator, processes=processes)
        )
        log.warning("an operator asks", action=action, worker=worker, by=operator)
        by = f" by {processes}" if processes else ""
        return f"{worker} will {WORDS[action]}{by} within seconds"

    async def release(self, task_id: str) -> str:
        """Release the work of a task that runs; returns how it goes on, in words."""
        task, operator = running_task(self, task_id), self.operator
        answer = await self.change(lambda session: _release(session, task, by=operator))
        log.warning("an operator released a task", task=task_id, by=operator)
        return answer


@dataclass(frozen=True)
class RunningTask:
    """A task that a worker has begun, as Flower has heard."""

    id: str
    worker: str
    about: ChunkTask | StepTask | RankTask


def running_task(handler: BaseHandler, task_id: str) -> RunningTask:
    """The task, if it runs. Raises ``HTTPError``."""
    task = get_task_by_id(handler.application.events, task_id)
    if task is None:
        raise web.HTTPError(404, f"Flower knows no task {task_id!r}, or has forgotten it")
    about = task_reference.read(str(task.name), str(task.args or "").strip("()'\","))
    if about is None:
        raise web.HTTPError(404, f"task {task_id} names no work of the ledger")
    if task.state != RUNS or task.worker is None:
        raise web.HTTPError(
            409,
            f"this task is {task.state} and no process works on it; control would send another "
            f"message for the same work, so pause or cancel {about.job_id}",
        )
    return RunningTask(task.uuid, task.worker.hostname, about)


def _release(session: Session, task: RunningTask, *, by: str) -> str:
    held: dict[str, Any] = {"worker": task.worker, "task_id": task.id, "by": by}
    match task.about:
        case ChunkTask(job_id, first_row):
            interventions.release_chunk(session, job_id, first_row=first_row, **held)
            return f"the chunk is released, and {job_id} goes on: another process computes it"
        case StepTask(job_id, step):
            interventions.release_step(session, job_id, step=step, **held)
            return f"the step is released, and {job_id} goes on: it is begun again"
        case RankTask(job_id, run):
            interventions.stop_run(session, job_id, number=run, by=by)
            return f"run {run} stops behind a checkpoint, and {job_id} goes on from it"
    assert_never(task.about)


def _processes(number: str) -> int:
    if not number.isdecimal() or not 1 <= int(number) <= MOST_PROCESSES:
        raise web.HTTPError(
            400, f"n must be a number of processes from 1 to {MOST_PROCESSES}, not {number!r}"
        )
    return int(number)


def _basic_user(authorization: str) -> str:
    """The user of a header that Flower has accepted."""
    try:
        decoded = base64.b64decode(authorization.partition(" ")[2]).decode()
    except (binascii.Error, UnicodeDecodeError):
        return "unknown"
    name = "".join(each for each in decoded.partition(":")[0] if each.isprintable())
    return name or "unknown"


class WorkerOrder(OperatorHandler, BaseApiHandler):  # type: ignore[misc]
    """Flower's API about a worker."""

    def initialize(self, ours: Collaborators, action: OrderAction) -> None:
        self.ours, self.action = ours, action

    @web.authenticated
    async def post(self, worker: str) -> None:
        number = self.get_argument("n", "1")
        self.write({"message": await self.place(worker, self.action, number=number)})


class TaskRelease(OperatorHandler, BaseApiHandler):  # type: ignore[misc]
    """Flower's API that revokes a task."""

    def initialize(self, ours: Collaborators) -> None:
        self.ours = ours

    @web.authenticated
    async def post(self, task_id: str) -> None:
        if not self.get_argument("terminate", default=False, type=bool):
            task = running_task(self, task_id)
            raise web.HTTPError(
                409,
                f"a process of {task.worker} works on it, which this would not stop: "
                "terminate=true releases its work",
            )
        self.write({"message": await self.release(task_id)})


class NotOffered(BaseApiHandler):  # type: ignore[misc]
    """What Flower offers and Nightshift has no use for."""

    def initialize(self, reason: str) -> None:
        self.reason = reason

    @web.authenticated
    async def post(self, _: str) -> None:
        raise web.HTTPError(501, self.reason)


_JOBS = "work comes in by the API and `nightshift`: a message alone is no job"
_CONSUMER = (
    "a worker serves the queue of its pool: start one with another NIGHTSHIFT_POOL, or shut this "
    "one down"
)

NOT_OFFERED = {
    r"/api/worker/pool/autoscale/(.+)": (
        "an autoscaler outside starts and ends workers by GET /v1/pools/{pool}/demand; to change "
        "one worker, grow or shrink it"
    ),
    r"/api/worker/queue/add-consumer/(.+)": _CONSUMER,
    r"/api/worker/queue/cancel-consumer/(.+)": _CONSUMER,
    r"/api/task/timeout/(.+)": (
        "chunks end by their lease and by progress, not by a time limit: see "
        "NIGHTSHIFT_STALL_SECONDS"
    ),
    r"/api/task/rate-limit/(.+)": (
        "a rate limit would let messages wait in a worker: pause jobs, or shrink the pool"
    ),
    r"/api/task/abort/(.+)": "there is no result backend: use /api/task/revoke with terminate=true",
    r"/api/task/apply/(.+)": _JOBS,
    r"/api/task/async-apply/(.+)": _JOBS,
    r"/api/task/send-task/(.+)": _JOBS,
}
"""Addresses of Flower's API that change something, and why they do nothing here."""

WORKER_ORDERS = {
    r"/api/worker/shutdown/(.+)": OrderAction.SHUT_DOWN,
    r"/api/worker/pool/restart/(.+)": OrderAction.RESTART_POOL,
    r"/api/worker/pool/grow/(.+)": OrderAction.GROW,
    r"/api/worker/pool/shrink/(.+)": OrderAction.SHRINK,
}
"""Addresses of Flower's API that are orders to a worker."""
