"""What operators ask of this worker: read with each heartbeat, carried out once (decision 0053).

A process that is ended here loses nothing: what it holds is released at once, and its death counts
against no chunk, step or job.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import psutil
import structlog
from celery import Celery, bootsteps
from celery.worker import state
from sqlalchemy.exc import SQLAlchemyError

from jobs.database import Sessions
from jobs.ledger import orders, rescue, workers
from jobs.ledger.orders import TakenOrder
from jobs.monitoring import meters
from jobs.orders import MOST_PROCESSES, OrderAction
from workers import endings, process_names

log = structlog.get_logger()

DEATH_SECONDS = 10.0
"""How long a process may take to be gone after SIGKILL."""

POLL_SECONDS = 0.02

TURN_SECONDS = 1.0
"""Between two looks of the event loop."""


@dataclass(frozen=True)
class PoolProcess:
    """A process of the pool, and its place among its siblings."""

    pid: int
    index: int


class ProcessPool(Protocol):
    """Celery's pool; ``grow`` and ``cut`` are called by the event loop alone."""

    def size(self) -> int:
        """How many processes it should have."""

    def processes(self) -> list[PoolProcess]:
        """Those that live."""

    def grow(self, number: int) -> None:
        """Start more."""

    def cut(self, number: int) -> list[PoolProcess]:
        """Replace the last ones no more when they end; returns them."""

    def process_of(self, task_id: str) -> int | None:
        """The number of the process that works on a task; ``None``: none does."""


class Orders:
    """The orders to one worker. ``look`` is called by a thread, ``turn`` by the event loop."""

    def __init__(
        self, sessions: Sessions, *, worker: str, record_size: Callable[[int], None]
    ) -> None:
        """``record_size`` is told how many processes the pool has, whenever that changes."""
        self._sessions = sessions
        self._worker = worker
        self._record_size = record_size
        self._pool: ProcessPool | None = None
        self._lock = threading.Lock()
        self._for_loop: list[TakenOrder] = []
        self._ended: list[PoolProcess] = []  # and what they held is not released yet
        self._changed: list[tuple[TakenOrder, list[PoolProcess]]] = []

    def begin(self, pool: ProcessPool) -> None:
        """The pool has started: take orders from now on."""
        self._pool = pool

    def look(self) -> None:
        """Take what was asked and carry it out. While Postgres is away, orders wait there."""
        if self._pool is None:
            return
        self._release_ended()
        self._finish_changes(self._pool)
        try:
            with self._sessions.begin() as session:
                taken = orders.take(session, self._worker)
        except SQLAlchemyError as error:
            log.warning("the ledger cannot be reached to read orders", error=str(error))
            return
        for order in taken:
            log.warning("an operator asked", action=order.action, by=order.asked_by)
            try:
                self._carry_out(order, self._pool)
            except Exception:
                log.exception("an order cannot be carried out", action=order.action)
                self._settle(order, "it failed: see the log of the worker", done=False)

    def turn(self) -> None:
        """Do what only the event loop may do."""
        with self._lock:
            waiting, self._for_loop = self._for_loop, []
            for order in waiting:
                self._changed.append((order, self._resized(order)))

    def _resized(self, order: TakenOrder) -> list[PoolProcess]:
        """Change the size of the pool; returns the processes that must end."""
        assert self._pool is not None
        assert order.processes is not None
        if order.action is OrderAction.SHRINK:
            return self._pool.cut(order.processes)
        self._pool.grow(order.processes)
        return []

    def _carry_out(self, order: TakenOrder, pool: ProcessPool) -> None:
        match order.action:
            case OrderAction.SHUT_DOWN:
                self._settle(order, "it drains and ends, as after SIGTERM")
                os.kill(os.getpid(), signal.SIGTERM)
            case OrderAction.RESTART_POOL:
                ended = pool.processes()
                self._end(ended, order=order)
                self._settle(order, f"{len(ended)} processes were ended, others start")
            case OrderAction.END_PROCESS:
                self._end_task(order, pool)
            case OrderAction.GROW | OrderAction.SHRINK:
                self._change_size(order, pool)

    def _end_task(self, order: TakenOrder, pool: ProcessPool) -> None:
        pid = pool.process_of(str(order.task_id))
        found = [process for process in pool.processes() if process.pid == pid]
        if not found:
            self._settle(order, "its process had stopped by itself")
            return
        self._end(found, order=order)
        self._settle(order, f"process {pid} did not stop, and was ended")

    def _change_size(self, order: TakenOrder, pool: ProcessPool) -> None:
        """Leave it to the event loop, unless the size cannot be; orders that wait there count."""
        with self._lock:
            size = pool.size() + sum(_difference(each) for each in (*self._for_loop, order))
            fits = 1 <= size <= MOST_PROCESSES
            if fits:
                self._for_loop.append(order)
        if not fits:
            words = f"a worker has 1 to {MOST_PROCESSES} processes, and would have {size}"
            self._settle(order, words, done=False)

    def _finish_changes(self, pool: ProcessPool) -> None:
        """End the processes that the event loop has cut, and record the new size."""
        with self._lock:
            changed, self._changed = self._changed, []
        for order, cut in changed:
            if cut:
                self._end(cut, order=order)
                for process in cut:
                    meters.vacate(process.index)
            self._record_size(pool.size())
            self._settle(order, f"the pool has {pool.size()} processes now")

    def _end(self, processes: list[PoolProcess], *, order: TakenOrder) -> None:
        """End them, and release what they held once they can do nothing more."""
        for process in processes:
            endings.excuse(process.pid, reason=f"{order.asked_by} ended its process in Flower")
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        self._wait_for_end(processes)
        self._ended += processes
        self._release_ended()

    def _release_ended(self) -> None:
        """Release what ended processes held; while Postgres is away, try again at the next look."""
        if not self._ended:
            return
        owners = [process_names.owner(process.pid) for process in self._ended]
        try:
            with self._sessions.begin() as session:
                rescue.release(session, owners=owners)
                for process in self._ended:
                    workers.show_engines(session, name=self._worker, slot=process.index, engines=())
        except SQLAlchemyError as error:
            log.warning("what ended processes held cannot be released yet", error=str(error))
        else:
            self._ended = []

    def _wait_for_end(self, processes: list[PoolProcess]) -> None:
        end = time.monotonic() + DEATH_SECONDS
        while time.monotonic() < end and not all(_has_ended(each.pid) for each in processes):
            time.sleep(POLL_SECONDS)

    def _settle(self, order: TakenOrder, result: str, *, done: bool = True) -> None:
        try:
            with self._sessions.begin() as session:
                orders.settle(session, order.id, done=done, result=result)
        except SQLAlchemyError as error:
            log.warning("the result of an order cannot be recorded", error=str(error))


def _difference(order: TakenOrder) -> int:
    """By how many processes the order changes the pool."""
    processes = order.processes or 0
    return processes if order.action is OrderAction.GROW else -processes


def _has_ended(pid: int) -> bool:
    """Whether it does nothing more; it is left to its pool, which waits for its exit status."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


class CeleryPool:
    """The prefork pool of a worker; see ``ProcessPool``."""

    def __init__(self, worker: Any) -> None:
        self._pool = worker.pool
        self._of_billiard = worker.pool._pool  # noqa: SLF001 - Celery has no other way to it

    def size(self) -> int:
        """How many processes it should have."""
        return int(self._pool.num_processes)

    def processes(self) -> list[PoolProcess]:
        """Those that live."""
        return [PoolProcess(each.pid, each.index) for each in self._live()]

    def grow(self, number: int) -> None:
        """Start more."""
        self._pool.grow(number)
        self._of_billiard.maintain_pool()

    def cut(self, number: int) -> list[PoolProcess]:
        """Those of the highest places, so that the places of the others have no gap.

        Celery's own ``shrink`` ends idle processes alone, and a busy pool has none.
        """
        kept = [each for each in self._live() if not each._controlled_termination]  # noqa: SLF001
        last = sorted(kept, key=lambda each: each.index)[-number:]
        for process in last:
            self._of_billiard._processes -= 1  # noqa: SLF001 - as its own ``shrink`` does
            self._of_billiard._putlock.shrink()  # noqa: SLF001
            process._controlled_termination = True  # noqa: SLF001 - it is no error
        return [PoolProcess(each.pid, each.index) for each in last]

    def process_of(self, task_id: str) -> int | None:
        """The number of the process that works on a task; ``None``: none does."""
        request = state.requests.get(task_id)
        return None if request is None else request.worker_pid

    def _live(self) -> list[Any]:
        return list(self._of_billiard._pool)  # noqa: SLF001 - it has no other list of them


def attach(app: Celery, taker: Orders) -> None:
    """Begin with the worker's pool, and let its event loop take part."""

    class OrderStep(bootsteps.StartStopStep):  # type: ignore[misc]
        requires = ("celery.worker.components:Timer", "celery.worker.components:Pool")

        def start(self, worker: Any) -> None:
            taker.begin(CeleryPool(worker))
            worker.timer.call_repeatedly(TURN_SECONDS, taker.turn)

    app.steps["worker"].add(OrderStep)
