"""Orders of operators: taken once, void when late, told in the history of what they touch."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from jobs.errors import Conflict, LeaseLost, NotFound
from jobs.ledger import chunks, hosts, interventions, orders, workers
from jobs.ledger.orders import TakenOrder
from jobs.orders import OrderAction, OrderState
from jobs.states import ChunkState, JobState, JobStep, RunState
from jobs.tables import Order
from tests.jobs.ledger.building import LEASE, Ledger, part_of
from tests.jobs.ledger.training import Training, at_once

WORKER = "cpu-7-ab@node7"
OWNER = f"{WORKER}:12"
AGENT = "train-8-cd@node8"


@pytest.fixture
def worker(ledger: Ledger) -> str:
    with ledger.sessions.begin() as session:
        session.execute(sa.delete(Order))
        workers.beat(session, name=WORKER, pool="cpu", slots=2, device="cpu")
    return WORKER


def place(ledger: Ledger, action: OrderAction, *, worker: str = WORKER, **given: Any) -> int:
    with ledger.sessions.begin() as session:
        return orders.place(session, worker, action, by="ann", **given)


def take(ledger: Ledger, worker: str = WORKER) -> list[TakenOrder]:
    with ledger.sessions.begin() as session:
        return orders.take(session, worker)


def row(ledger: Ledger, order_id: int) -> Order:
    with ledger.sessions.begin() as session:
        return session.get_one(Order, order_id)


def told(ledger: Ledger, job_id: str) -> list[tuple[str, str]]:
    found = [event for event in ledger.events(job_id) if event.type == "operator"]
    return [(event.data["action"], event.data["by"]) for event in found]


def test_an_order_is_taken_once_by_its_worker(ledger: Ledger, worker: str) -> None:
    order_id = place(ledger, OrderAction.GROW, processes=2)
    assert take(ledger, "cpu-1-ab@node7") == []
    taken = at_once([lambda: take(ledger, worker)] * 4)
    assert [order for each in taken for order in each] == [
        TakenOrder(order_id, OrderAction.GROW, "ann", 2, None)
    ]
    with ledger.sessions.begin() as session:
        orders.settle(session, order_id, done=True, result="4 processes")
    assert (row(ledger, order_id).state, row(ledger, order_id).result) == ("done", "4 processes")


def test_an_order_that_comes_late_is_void(ledger: Ledger, worker: str) -> None:
    order_id = place(ledger, OrderAction.SHUT_DOWN)
    with ledger.sessions.begin() as session:
        session.execute(sa.update(Order).values(due_at=sa.func.now() - timedelta(seconds=61)))
    assert take(ledger, worker) == []
    assert row(ledger, order_id).state is OrderState.EXPIRED


def test_a_worker_that_is_gone_or_silent_takes_no_orders(ledger: Ledger, worker: str) -> None:
    with pytest.raises(NotFound, match="has ended"):
        place(ledger, OrderAction.SHUT_DOWN, worker="cpu-1-ab@node7")
    with ledger.sessions.begin() as session:
        session.execute(
            sa.text("UPDATE workers SET beat_at = now() - interval '21 s' WHERE name = :name"),
            {"name": worker},
        )
    with pytest.raises(Conflict, match="silent"):
        place(ledger, OrderAction.SHUT_DOWN)


def test_a_training_host_is_shut_down_and_its_pool_left_alone(ledger: Ledger) -> None:
    training = Training(ledger)
    (host,) = training.hosts(1, worker=AGENT)
    job_id = training.job()
    run_id = training.formed(job_id, [host])
    for action in (OrderAction.RESTART_POOL, OrderAction.GROW, OrderAction.SHRINK):
        with pytest.raises(Conflict, match="training host"):
            place(ledger, action, worker=AGENT, processes=None)
    place(ledger, OrderAction.SHUT_DOWN, worker=AGENT)
    assert [order.action for order in take(ledger, AGENT)] == [OrderAction.SHUT_DOWN]
    assert told(ledger, job_id) == [("shut down", "ann")]
    with ledger.sessions.begin() as session:
        interventions.stop_run(session, job_id, number=1, by="bob")
    assert training.run(run_id).stop == "checkpoint"
    assert told(ledger, job_id)[1:] == [("stop the run", "bob")]
    with ledger.sessions.begin() as session, pytest.raises(Conflict, match="stopped already"):
        interventions.stop_run(session, job_id, number=1, by="bob")
    assert training.run(run_id).state is RunState.FORMING
    with ledger.sessions.begin() as session:
        hosts.leave(session, name=host.name, incarnation=host.incarnation)


def test_jobs_of_which_a_worker_holds_something_are_told(ledger: Ledger, worker: str) -> None:
    held, other = ledger.running(10), ledger.running(10)
    planned = ledger.accept()
    ledger.claim_step(planned, owner=f"{worker}:13")
    with ledger.sessions.begin() as session:
        chunks.claim(session, ledger.only_chunk(held), owner=OWNER, duration=LEASE)
    place(ledger, OrderAction.RESTART_POOL)
    take(ledger)
    assert told(ledger, held) == told(ledger, planned) == [("restart the pool", "ann")]
    assert told(ledger, other) == []


def test_a_released_chunk_is_pending_and_what_its_process_writes_is_refused(
    ledger: Ledger, worker: str
) -> None:
    job_id = ledger.running(10)
    chunk_id = ledger.only_chunk(job_id)
    with ledger.sessions.begin() as session:
        lease = chunks.claim(session, chunk_id, owner=OWNER, duration=LEASE)
    assert lease is not None
    with ledger.sessions.begin() as session:
        interventions.release_chunk(
            session, job_id, first_row=0, worker=worker, task_id="t", by="ann"
        )
    chunk = ledger.chunk(chunk_id)
    assert (chunk.state, chunk.crashes, chunk.failures) == (ChunkState.PENDING, 0, 0)
    with ledger.sessions.begin() as session:
        assert orders.releaser(session, chunk_id, fence=lease.fence) == "ann"
        assert orders.releaser(session, chunk_id, fence=lease.fence + 1) is None
        assert chunks.renew(session, lease, duration=LEASE) is None
    with ledger.sessions.begin() as session, pytest.raises(LeaseLost):
        chunks.commit(session, lease, part_of(lease))
    assert take(ledger) == []  # its process has time to stop by itself
    with ledger.sessions.begin() as session:
        session.execute(sa.update(Order).values(due_at=sa.func.now()))
    assert [(each.action, each.task_id) for each in take(ledger)] == [
        (OrderAction.END_PROCESS, "t")
    ]
    assert told(ledger, job_id) == [("release the chunk", "ann")]


def test_only_what_that_worker_holds_is_released(ledger: Ledger, worker: str) -> None:
    job_id = ledger.running(10)
    with ledger.sessions.begin() as session:
        chunks.claim(session, ledger.only_chunk(job_id), owner="cpu-1-ab@n:1", duration=LEASE)
    given: dict[str, Any] = {"worker": worker, "task_id": "t", "by": "ann"}
    with ledger.sessions.begin() as session:
        with pytest.raises(Conflict, match="does not hold"):
            interventions.release_chunk(session, job_id, first_row=0, **given)
        with pytest.raises(Conflict, match="does not plan"):
            interventions.release_step(session, job_id, step=JobStep.PLAN, **given)
    assert told(ledger, job_id) == []


def test_a_released_step_is_claimed_again_without_a_crash(ledger: Ledger, worker: str) -> None:
    job_id = ledger.accept()
    ledger.claim_step(job_id, owner=OWNER)
    with ledger.sessions.begin() as session:
        interventions.release_step(
            session, job_id, step=JobStep.PLAN, worker=worker, task_id="t", by="ann"
        )
    assert ledger.claim_step(job_id, owner="another") is not None
    assert ledger.job(job_id).step_crashes == 0


def test_a_job_is_paused_resumed_and_cancelled_by_name(ledger: Ledger) -> None:
    job_id = ledger.running(10)
    for work in (interventions.pause, interventions.resume, interventions.cancel):
        with ledger.sessions.begin() as session:
            work(session, job_id, by="ann")
    assert ledger.job(job_id).state is JobState.CANCELLING
    by = [event.data.get("by") for event in ledger.events(job_id) if event.type == "state"]
    assert by[-3:] == ["ann"] * 3
    with ledger.sessions.begin() as session, pytest.raises(NotFound):
        interventions.pause(session, "job_none", by="ann")


def test_the_newest_orders_are_kept(
    ledger: Ledger, worker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orders, "KEPT", 3)
    made = [place(ledger, OrderAction.SHUT_DOWN, worker=worker) for _ in range(5)]
    with ledger.sessions.begin() as session:
        assert session.scalars(sa.select(Order.id).order_by(Order.id)).all() == made[2:]
