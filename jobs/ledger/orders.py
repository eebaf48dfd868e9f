"""Orders of operators to workers: placed, taken once, and their results.

A worker takes its orders with its heartbeat, so that they hold while Redis is away. What was taken
is not handed out again: an order is carried out once, or not at all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.errors import Conflict, NotFound
from jobs.ledger import events
from jobs.lookups import holders, predicates
from jobs.orders import OF_POOLS, PATIENCE, TOUCHES_WORK, WORDS, OrderAction, OrderState
from jobs.states import LIVE_RUN, ChunkState
from jobs.tables import Chunk, Host, Job, Order, Run, Worker

KEPT = 1_000
"""Orders that are kept, the newest."""

MOST_JOBS = 100
"""Jobs of one worker in whose history an order stands."""


@dataclass(frozen=True)
class TakenOrder:
    """An order that its worker carries out now."""

    id: int
    action: OrderAction
    asked_by: str
    processes: int | None
    task_id: str | None


def place(
    session: Session,
    worker: str,
    action: OrderAction,
    *,
    by: str,
    processes: int | None = None,
) -> int:
    """Ask a worker that is heard; the order's id.

    Raises ``NotFound`` for a worker that is not on record, and ``Conflict`` for one that is silent
    or cannot do this.
    """
    is_host, is_heard = _recorded(session, worker)
    if not is_heard:
        raise Conflict(
            f"{worker} has been silent for more than {predicates.SILENCE.seconds} s and would not "
            "hear of it: end it where it runs",
            code="worker_silent",
        )
    if is_host and action in OF_POOLS:
        raise Conflict(
            f"{worker} is a training host and has one process: shut it down, and its supervisor "
            "starts it again",
            code="worker_is_a_host",
        )
    return _insert(session, worker, action, by=by, processes=processes)


def end_process(
    session: Session,
    worker: str,
    *,
    task_id: str,
    by: str,
    after: timedelta,
    lease: tuple[int, int] | None = None,
) -> int:
    """Ask a worker to end a task's process unless that stops by itself before; the order's id.

    ``lease``: the chunk that was released from it, and the fence.
    """
    chunk_id, fence = lease or (None, None)
    return _insert(
        session,
        worker,
        OrderAction.END_PROCESS,
        by=by,
        task_id=task_id,
        chunk_id=chunk_id,
        fence=fence,
        due_at=sa.func.now() + after,
    )


def take(session: Session, worker: str) -> list[TakenOrder]:
    """What the worker must do now; what it holds is told in the history of the jobs."""
    late = Order.due_at < sa.func.now() - PATIENCE
    waiting = (Order.worker == worker, Order.state == OrderState.WAITING)
    session.execute(
        sa.update(Order)
        .where(*waiting, late)
        .values(
            state=OrderState.EXPIRED,
            ended_at=sa.func.now(),
            result=f"not taken within {PATIENCE.seconds} s",
        )
    )
    taken = session.scalars(
        sa.update(Order)
        .where(*waiting, Order.due_at <= sa.func.now())
        .values(state=OrderState.TAKEN, taken_at=sa.func.now())
        .returning(Order)
    ).all()
    for order in taken:
        if order.action in TOUCHES_WORK:
            _tell_jobs(session, order)
    return [
        TakenOrder(order.id, order.action, order.asked_by, order.processes, order.task_id)
        for order in sorted(taken, key=lambda order: order.id)
    ]


def settle(session: Session, order_id: int, *, done: bool, result: str) -> None:
    """Record the result of an order that was taken."""
    session.execute(
        sa.update(Order)
        .where(Order.id == order_id, Order.state == OrderState.TAKEN)
        .values(
            state=OrderState.DONE if done else OrderState.REFUSED,
            ended_at=sa.func.now(),
            result=result,
        )
    )


def releaser(session: Session, chunk_id: int, *, fence: int) -> str | None:
    """Who had the chunk released from the process that held it under this fence."""
    return session.scalar(
        sa.select(Order.asked_by).where(Order.chunk_id == chunk_id, Order.fence == fence).limit(1)
    )


def _recorded(session: Session, worker: str) -> tuple[bool, bool]:
    """Whether it is a training host, and whether it is heard. Raises ``NotFound``."""
    recent = sa.func.now() - predicates.SILENCE
    heard = session.scalar(sa.select(Worker.beat_at > recent).where(Worker.name == worker))
    if heard is not None:
        return False, heard
    heard = session.scalar(sa.select(Host.beat_at > recent).where(Host.worker == worker))
    if heard is None:
        raise NotFound(f"no worker {worker!r} is on record: it has ended, or ends now")
    return True, heard


def _insert(
    session: Session, worker: str, action: OrderAction, *, by: str, **values: object
) -> int:
    order_id = session.scalars(
        sa.insert(Order)
        .values(worker=worker, action=action, asked_by=by, **values)
        .returning(Order.id)
    ).one()
    newest = sa.select(Order.id).order_by(Order.id.desc()).offset(KEPT)
    session.execute(sa.delete(Order).where(Order.id.in_(newest)))
    return order_id


def _tell_jobs(session: Session, order: Order) -> None:
    for job_id in _jobs_of(session, order.worker):
        events.record(
            session,
            job_id=job_id,
            type="operator",
            action=WORDS[order.action],
            worker=order.worker,
            by=order.asked_by,
        )


def _jobs_of(session: Session, worker: str) -> Iterable[str]:
    """Jobs of which the worker holds a chunk, a step or a run."""
    chunks = sa.select(Chunk.job_id).where(
        Chunk.state == ChunkState.LEASED, holders.worker(Chunk.owner) == worker
    )
    steps = sa.select(Job.id).where(
        Job.step_owner.is_not(None), holders.worker(Job.step_owner) == worker
    )
    runs = (
        sa.select(Run.job_id)
        .join(Host, Host.run_id == Run.id)
        .where(Host.worker == worker, Run.state.in_(LIVE_RUN))
    )
    return session.scalars(sa.union(chunks, steps, runs).limit(MOST_JOBS)).all()
