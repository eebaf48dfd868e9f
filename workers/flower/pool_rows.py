"""Pools, workers, hosts and queues as the pages show them; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from jobs import figures
from jobs.lookups import predicates
from jobs.orders import PATIENCE, WORDS, OrderState
from jobs.queries.backlog import COUNTED, NOTHING, Backlog
from jobs.queries.capacity import PLANNERS
from jobs.queries.occupancy import HeldChunk, HeldStep, HostNow
from jobs.tables import Order, Worker
from jobs.worker_names import WorkerName
from workers.app import PLAN_QUEUE, host_queue, pool_queue
from workers.flower import job_rows


@dataclass(frozen=True)
class Work:
    """What a worker or host does now."""

    words: str
    job_id: str
    percent: int | None  # null: not known


@dataclass(frozen=True)
class WorkerRow:
    """A worker on record."""

    name: str
    machine: str
    pool: str
    device: str
    slots: int
    beat: str
    alive: bool
    engines: tuple[str, ...]
    work: tuple[Work, ...]


@dataclass(frozen=True)
class HostRow:
    """A training host."""

    name: str
    worker: str  # its agent's name among Celery's; empty: of an earlier version
    pool: str
    device: str
    memory: str
    beat: str
    alive: bool
    draining: bool
    shares: str
    work: Work | None


@dataclass(frozen=True)
class PoolRow:
    """A pool in sum."""

    name: str
    workers: int  # that are heard
    silent: int
    slots: int  # of those that are heard
    busy: int
    waiting: str


@dataclass(frozen=True)
class QueueRow:
    """A queue, as the ledger and as Redis have it."""

    name: str
    jobs: str
    waiting: str
    sent: str
    messages: str
    window: str
    oldest_message: str
    oldest_job: str
    slots: str


def workers(
    found: Iterable[Worker],
    *,
    chunks: Iterable[HeldChunk],
    steps: Iterable[HeldStep],
    now: datetime,
) -> list[WorkerRow]:
    """Workers with what they hold."""
    work: dict[str, list[Work]] = {}
    for chunk in chunks:
        shown = job_rows.held(chunk, now=now)
        words = f"{shown.words} · {shown.about} · {shown.since}"
        work.setdefault(chunk.worker, []).append(Work(words, shown.job_id, shown.percent))
    for step in steps:
        words = f"{step.state} · {job_rows.about(step.subject)}"
        work.setdefault(step.worker, []).append(Work(words, step.subject.job_id, None))
    return [
        WorkerRow(
            name=worker.name,
            machine=_machine(worker.name),
            pool="planners" if worker.pool == PLANNERS else worker.pool,
            device=worker.device,
            slots=worker.slots,
            beat=figures.age(worker.beat_at, now=now),
            alive=worker.beat_at > now - predicates.SILENCE,
            engines=tuple(
                f"{engine['model']} ({engine['kind']})"
                for _, slot in sorted(worker.engines.items())
                for engine in slot
            ),
            work=tuple(work.get(worker.name, ())),
        )
        for worker in found
    ]


def _machine(worker: str) -> str:
    """The machine of a worker; a name that is none of ours stands for itself."""
    name = WorkerName.read(worker)
    return worker if name is None else name.machine


def pools(
    found: Sequence[WorkerRow], hosts: Sequence[HostRow], *, backlog: Mapping[str, Backlog]
) -> list[PoolRow]:
    """Every pool that has a worker, a host or something that waits."""
    everyone: list[tuple[str, bool, int, int]] = [
        (worker.pool, worker.alive, worker.slots, len(worker.work)) for worker in found
    ]
    everyone += [(host.pool, host.alive, 1, int(host.work is not None)) for host in hosts]
    heard, silent, slots, busy = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    for pool, alive, its_slots, its_work in everyone:
        heard[pool] += alive
        silent[pool] += not alive
        slots[pool] += its_slots * alive
        busy[pool] += its_work
    return [
        PoolRow(
            name=name,
            workers=heard[name],
            silent=silent[name],
            slots=slots[name],
            busy=busy[name],
            waiting=_counted(backlog.get(name, NOTHING).waiting),
        )
        for name in sorted({*heard, *backlog})
    ]


def hosts(found: Iterable[HostNow], *, now: datetime) -> list[HostRow]:
    """Training hosts with the rank that each has."""
    return [
        HostRow(
            name=each.host.name,
            worker=each.host.worker or "",
            pool=each.host.pool,
            device=each.host.device,
            memory=figures.size(each.host.memory_bytes),
            beat=figures.age(each.host.beat_at, now=now),
            alive=each.alive,
            draining=each.host.draining,
            shares=f"{each.host.sharing} {each.host.shares_pool}" if each.host.sharing else "",
            work=_rank(each),
        )
        for each in found
    ]


@dataclass(frozen=True)
class OrderRow:
    """What an operator asked of a worker."""

    asked: str
    by: str
    words: str  # "grow the pool by 2"
    state: str
    badge: str
    result: str


ORDER_BADGES = {
    OrderState.DONE: "text-bg-success",
    OrderState.REFUSED: "text-bg-danger",
    OrderState.EXPIRED: "text-bg-warning",
}


def order(found: Order, *, now: datetime) -> OrderRow:
    """An order, as of ``now``."""
    by = f" by {found.processes}" if found.processes else ""
    waits_since = max(found.due_at, found.asked_at)
    expired = found.state is OrderState.WAITING and now - waits_since > PATIENCE
    state = OrderState.EXPIRED if expired else found.state
    return OrderRow(
        asked=figures.moment(found.asked_at),
        by=found.asked_by,
        words=f"{WORDS[found.action]}{by}",
        state=state,
        badge=ORDER_BADGES.get(state, job_rows.PLAIN),
        result=found.result or "",
    )


def _rank(now: HostNow) -> Work | None:
    if now.run is None or now.subject is None:
        return None
    place = f"rank {now.rank.rank} of {now.run.machines}" if now.rank else "reserved"
    phase = f" · {now.rank.phase}" if now.rank and now.rank.phase else ""
    words = f"{place} · run {now.run.number} · {job_rows.about(now.subject)}{phase}"
    return Work(words, now.subject.job_id, figures.percent(now.run.step, now.run.steps_total))


def queues(
    *,
    pools: Mapping[str, Backlog],
    planners: Backlog,
    hosts: Mapping[str, Backlog],
    slots: Mapping[str, int],
    lengths: Mapping[str, int | None],
    window: int,
    now: datetime,
) -> list[QueueRow]:
    """Every queue that has work in the ledger, workers, or messages in Redis.

    ``lengths``: of the queues in Redis; ``None``: what lies there is no queue.
    """
    known = {PLAN_QUEUE: planners}
    known |= {pool_queue(name): each for name, each in pools.items()}
    known |= {host_queue(name): each for name, each in hosts.items()}
    of_queue = {
        PLAN_QUEUE if pool == PLANNERS else pool_queue(pool): number
        for pool, number in slots.items()
    }
    return [
        QueueRow(
            name=name,
            jobs=figures.count(backlog.jobs),
            waiting=_counted(backlog.waiting),
            sent=figures.count(backlog.sent),
            messages=figures.count(lengths.get(name, 0)),
            window=_window(name, window=window, slots=of_queue.get(name, 0)),
            oldest_message=figures.age(backlog.oldest_sent_at, now=now),
            oldest_job=figures.age(backlog.oldest_job_at, now=now),
            slots=figures.NONE if _is_of_host(name) else figures.count(of_queue.get(name, 0)),
        )
        for name in sorted({*known, *of_queue, *lengths})
        for backlog in (known.get(name, NOTHING),)
    ]


def _is_of_host(queue: str) -> bool:
    """Whether it is the queue of a training host, which takes one rank at a time."""
    return queue.startswith(host_queue(""))


def _window(queue: str, *, window: int, slots: int) -> str:
    """How many messages control lets wait there, as ``workers.control.reconciler`` has it."""
    if queue.startswith(pool_queue("")):
        return figures.count(max(window, 2 * slots))
    return figures.count(window) if queue == PLAN_QUEUE else figures.NONE


def _counted(waiting: int) -> str:
    return f"{waiting:,} or more" if waiting >= COUNTED else figures.count(waiting)
