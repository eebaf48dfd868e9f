"""A worker carries out its orders once; processes that it ends lose nothing."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from jobs.ledger import orders as ledger_of_orders
from jobs.ledger import workers
from jobs.orders import GRACE, MOST_PROCESSES, OrderAction, OrderState
from jobs.states import ChunkState
from jobs.tables import Order
from tests.jobs.ledger.building import Ledger
from workers import endings, process_names
from workers.orders import Orders, PoolProcess

TOKEN = "ab12"
WORKER = f"orders-7-{TOKEN}@node7"


class SleepingPool:
    """A pool of processes that sleep; the first works on the task ``t``."""

    def __init__(self, number: int) -> None:
        self.popens: list[subprocess.Popen[bytes]] = []
        self.wanted = 0
        self.grow(number)

    def size(self) -> int:
        return self.wanted

    def processes(self) -> list[PoolProcess]:
        return [
            PoolProcess(popen.pid, index)
            for index, popen in enumerate(self.popens)
            if popen.poll() is None
        ]

    def grow(self, number: int) -> None:
        self.wanted += number
        self.popens += [subprocess.Popen(["sleep", "1000"]) for _ in range(number)]

    def cut(self, number: int) -> list[PoolProcess]:
        self.wanted -= number
        return self.processes()[-number:]

    def process_of(self, task_id: str) -> int | None:
        return self.popens[0].pid if task_id == "t" else None


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch, ledger: Ledger) -> Iterator[SleepingPool]:
    monkeypatch.setenv(process_names.TOKEN, TOKEN)
    monkeypatch.setenv(process_names.WORKER, WORKER)
    process_names.token.cache_clear()
    with ledger.sessions.begin() as session:
        session.execute(sa.delete(Order))
        workers.beat(session, name=WORKER, pool="orders", slots=2, device="cpu")
    pool = SleepingPool(2)
    yield pool
    for popen in pool.popens:
        popen.kill()
        popen.wait()
    process_names.token.cache_clear()


@pytest.fixture
def sizes() -> list[int]:
    return []


@pytest.fixture
def taker(ledger: Ledger, pool: SleepingPool, sizes: list[int]) -> Orders:
    taker = Orders(ledger.sessions, worker=WORKER, record_size=sizes.append)
    taker.begin(pool)
    return taker


def ask(ledger: Ledger, action: OrderAction, processes: int | None = None) -> int:
    with ledger.sessions.begin() as session:
        return ledger_of_orders.place(session, WORKER, action, by="ann", processes=processes)


def order(ledger: Ledger, order_id: int) -> Order:
    with ledger.sessions.begin() as session:
        return session.get_one(Order, order_id)


def test_a_pool_is_restarted_and_what_it_holds_is_free_at_once(
    ledger: Ledger, pool: SleepingPool, taker: Orders
) -> None:
    job_id = ledger.running(10, 10)
    held, other = (chunk.id for chunk in ledger.live(job_id))
    first, second = (popen.pid for popen in pool.popens)
    ledger.claimed(held, owner=process_names.owner(first))
    ledger.claimed(other, owner="another")
    order_id = ask(ledger, OrderAction.RESTART_POOL)
    taker.look()
    taker.look()  # it is carried out once
    assert [popen.wait(10) for popen in pool.popens] == [-9, -9]
    chunk = ledger.chunk(held)
    assert (chunk.state, chunk.crashes, chunk.failures) == (ChunkState.PENDING, 0, 0)
    assert ledger.chunk(other).state is ChunkState.LEASED
    assert endings.reason(first) == endings.reason(second) == "ann ended its process in Flower"
    assert endings.reason(None) is None
    assert order(ledger, order_id).result == "2 processes were ended, others start"


def test_only_the_process_of_the_task_is_ended(
    ledger: Ledger, pool: SleepingPool, taker: Orders
) -> None:
    with ledger.sessions.begin() as session:
        ended, over = (
            ledger_of_orders.end_process(session, WORKER, task_id=task, by="ann", after=-GRACE)
            for task in ("t", "another")
        )
    taker.look()
    assert pool.popens[0].wait(10) == -9
    assert pool.popens[1].poll() is None
    assert "was ended" in str(order(ledger, ended).result)
    assert "stopped by itself" in str(order(ledger, over).result)


def test_orders_that_wait_for_the_event_loop_count_for_the_next_one(
    ledger: Ledger, pool: SleepingPool, taker: Orders
) -> None:
    first, second = (ask(ledger, OrderAction.SHRINK, 1) for _ in range(2))
    taker.look()
    taker.turn()
    taker.look()
    assert (pool.size(), len(pool.processes())) == (1, 1)
    assert order(ledger, first).state is OrderState.DONE
    assert order(ledger, second).state is OrderState.REFUSED
    assert "would have 0" in str(order(ledger, second).result)


def test_a_pool_changes_its_size_by_the_event_loop(
    ledger: Ledger, pool: SleepingPool, taker: Orders, sizes: list[int]
) -> None:
    order_id = ask(ledger, OrderAction.GROW, 2)
    taker.look()
    assert pool.size() == 2
    taker.turn()
    taker.look()
    assert (pool.size(), sizes) == (4, [4])
    assert order(ledger, order_id).state is OrderState.DONE
    ask(ledger, OrderAction.SHRINK, 3)
    taker.look()
    taker.turn()
    assert len(pool.processes()) == 4
    taker.look()
    assert [popen.poll() is None for popen in pool.popens] == [True, False, False, False]
    assert sizes == [4, 1]


@pytest.mark.parametrize(
    ("action", "processes"), [(OrderAction.SHRINK, 2), (OrderAction.GROW, MOST_PROCESSES)]
)
def test_a_pool_has_at_least_one_process_and_not_too_many(
    ledger: Ledger, pool: SleepingPool, taker: Orders, action: OrderAction, processes: int
) -> None:
    order_id = ask(ledger, action, processes)
    taker.look()
    taker.turn()
    assert pool.size() == 2
    assert order(ledger, order_id).state is OrderState.REFUSED


def test_orders_wait_while_the_pool_starts(ledger: Ledger, pool: SleepingPool) -> None:
    order_id = ask(ledger, OrderAction.GROW, 1)
    Orders(ledger.sessions, worker=WORKER, record_size=lambda _: None).look()
    assert order(ledger, order_id).state is OrderState.WAITING
    assert pool.size() == 2
