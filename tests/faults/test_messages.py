"""Promise P12: no message of the broker stops a worker, and none of them is put back.

The attacker of these tests has the password of the broker, and no other.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis
import sqlalchemy as sa
from celery import Celery

from jobs import message_words
from jobs.ledger import message_keys
from jobs.queries import refused_messages
from jobs.states import JobState
from jobs.tables import Chunk, RefusedMessage
from tests.faults.conftest import Answers, answers
from tests.faults.test_processes import running
from tests.support import bad_messages, deadly_messages
from tests.support.bad_messages import HUGE
from tests.support.installation import Installation, Process, jsonl, sentences
from tests.support.waiting import wait_until
from workers import app
from workers.app import PLAN_QUEUE, host_queue, pool_queue

HOST = "attacked"
QUEUES = {PLAN_QUEUE: "planner", pool_queue("cpu"): "pool", host_queue(HOST): f"host-{HOST}"}
PRIORITY = "\x06\x163"
"""Behind the name of a queue: its messages of another priority."""

ROWS = 200
WORKER_MEMORY = 64 * 2**20
"""Bytes that a worker may grow by while it receives messages of a hundred megabytes."""


@pytest.fixture(scope="module")
def broker(installation: Installation) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(installation.settings.redis_url) as client:
        yield client


@pytest.fixture(scope="module")
def workers(installation: Installation, undisturbed: Answers) -> Iterator[list[Process]]:  # noqa: ARG001
    host = installation.start_host(HOST)
    yield [running(installation, "planner"), running(installation, "pool"), host]
    host.stop()


@pytest.fixture
def celery(installation: Installation) -> Celery:
    return app.make(installation.settings.redis_url)


def key(installation: Installation) -> bytes:
    return message_keys.read(installation.sessions)


def refused(installation: Installation) -> list[RefusedMessage]:
    with installation.sessions.begin() as session:
        return refused_messages.latest(session, limit=10_000)


def empty(broker: redis.Redis) -> bool:
    return not any(broker.llen(f"{queue}{step}") for queue in QUEUES for step in ("", PRIORITY))


def test_no_bad_message_ends_a_worker_or_stops_the_work(
    installation: Installation,
    workers: list[Process],
    broker: redis.Redis,
    undisturbed: Answers,
) -> None:
    job = installation.submit(jsonl(sentences(ROWS)), chunk_rows=5)
    sent: dict[tuple[str, str], bytes] = {}
    for queue, task in ((PLAN_QUEUE, "plan"), (pool_queue("cpu"), "chunk")):
        argument: str | int = job if task == "plan" else 1
        genuine = bad_messages.signed(task, argument, queue=queue, key=key(installation))
        sent |= {(queue, bad.name): bad.raw for bad in bad_messages.of(genuine)}
    genuine = bad_messages.signed("rank", "run", 0, "x", queue=host_queue(HOST), key=b"other")
    sent |= {(host_queue(HOST), bad.name): bad.raw for bad in bad_messages.of(genuine)}
    for (queue, _), raw in sent.items():
        broker.lpush(queue, raw)
        broker.lpush(f"{queue}{PRIORITY}", raw)
    assert installation.wait(job).job.state is JobState.SUCCEEDED
    assert answers(installation, job) == {row: undisturbed[row] for row in range(ROWS)}
    wait_until(lambda: empty(broker), seconds=60)
    assert [worker.alive for worker in workers] == [True, True, True]
    assert not broker.exists("unacked", "unacked_index")
    wait_until(lambda: {each.queue for each in refused(installation)} >= set(QUEUES), seconds=20)
    reasons = {each.reason for each in refused(installation)}
    assert {"malformed", "unsigned", "bad_signature", "too_long"} <= reasons


def test_messages_of_a_hundred_megabytes_cost_no_memory(
    installation: Installation, workers: list[Process], broker: redis.Redis
) -> None:
    before = [psutil.Process(worker.pid).memory_info().rss for worker in workers]
    huge = b"[" * HUGE
    for queue in QUEUES:
        broker.lpush(queue, huge, b"{}")
    wait_until(lambda: empty(broker), seconds=60)
    wait_until(lambda: any(each.size == HUGE for each in refused(installation)), seconds=20)
    peaks = [_peak(worker.pid) for worker in workers]
    assert [worker.alive for worker in workers] == [True, True, True]
    assert [peak - rss < WORKER_MEMORY for peak, rss in zip(peaks, before, strict=True)] == [
        True
    ] * 3
    job_id = installation.submit(jsonl(sentences(20)), chunk_rows=5)
    assert installation.wait(job_id).job.state is JobState.SUCCEEDED


def test_workers_answer_questions_and_take_no_orders(
    installation: Installation, workers: list[Process], celery: Celery
) -> None:
    names: set[str] = set()

    def answered() -> bool:
        names.update(celery.control.inspect(timeout=5).ping() or {})
        return len(names) == len(workers)

    wait_until(answered, seconds=60)
    celery.control.broadcast("shutdown")
    celery.control.broadcast("pool_shrink", arguments={"n": 1})
    celery.control.cancel_consumer(pool_queue("cpu"))
    celery.control.add_consumer("elsewhere")
    celery.control.broadcast("ping", pattern="(.*.*)*x", matcher="pcre")
    with celery.connection() as connection:
        channel = connection.default_channel
        for body in (b"null", b"7", b"[" * 10_000, b'{"method": ["shutdown"]}', b"\xff"):
            channel.client.publish("/0.celery.pidbox", body)
    assert set(celery.control.inspect(timeout=20).ping() or {}) == names
    queues = celery.control.inspect(timeout=5).active_queues() or {}
    assert {queue["name"] for each in queues.values() for queue in each} == set(QUEUES)
    wait_until(
        lambda: (
            {"not_offered", "malformed"}
            <= {each.reason for each in refused(installation) if each.queue == "remote control"}
        ),
        seconds=20,
    )
    job_id = installation.submit(jsonl(sentences(20)), chunk_rows=5)
    assert installation.wait(job_id).job.state is JobState.SUCCEEDED


@pytest.mark.usefixtures("workers")
def test_who_has_only_the_brokers_password_starts_no_work(
    installation: Installation, broker: redis.Redis, celery: Celery
) -> None:
    job_id = installation.submit(jsonl(sentences(20)), chunk_rows=5, pool="unattended")
    wait_until(lambda: installation.job(job_id).job.planned_at is not None, seconds=60)
    with installation.sessions.begin() as session:
        first = session.scalars(sa.select(Chunk.id).where(Chunk.job_id == job_id)).first()
    elsewhere = pool_queue("unattended")
    wait_until(lambda: broker.llen(elsewhere), seconds=30)
    known = {each.digest for each in refused(installation)}
    celery.send_task("chunk", args=(first,), queue=pool_queue("cpu"))
    broker.lpush(pool_queue("cpu"), str(broker.lindex(elsewhere, 0), "ascii"))  # type: ignore[arg-type]

    def reasons() -> set[str]:
        return {each.reason for each in refused(installation) if each.digest not in known}

    wait_until(lambda: reasons() >= {"unsigned", "bad_signature"}, seconds=30)
    assert installation.job(job_id).counts.done == 0


def test_a_value_of_another_type_at_a_queues_key_is_removed(
    installation: Installation, workers: list[Process], broker: redis.Redis
) -> None:
    for queue in (*QUEUES, pool_queue("cpu") + "\x06\x169", "_kombu.binding.celery.pidbox"):
        broker.delete(queue)
        broker.set(queue, "no list")
    job_id = installation.submit(jsonl(sentences(20)), chunk_rows=5)
    assert installation.wait(job_id).job.state is JobState.SUCCEEDED
    assert [worker.alive for worker in workers] == [True, True, True]
    pool = installation.start_role("pool", NIGHTSHIFT_POOL="bound")
    job_id = installation.submit(jsonl(sentences(20)), chunk_rows=5, pool="bound")
    assert installation.wait(job_id).job.state is JobState.SUCCEEDED
    pool.stop()


@pytest.mark.usefixtures("undisturbed")
def test_a_message_of_which_two_workers_die_is_in_quarantine_and_its_job_fails(
    installation: Installation,
) -> None:
    pool, temporary = "cursed", installation.home / "tmp"
    temporary.mkdir()
    cursed = installation.submit(jsonl(sentences(40)), chunk_rows=10, pool=pool)

    def start() -> Process:
        return installation.start_role(
            "pool",
            NIGHTSHIFT_POOL=pool,
            PYTHONPATH=str(Path(deadly_messages.__file__).parent),
            DEADLY_WORDS=message_words.SEPARATOR.join(("rows 10 to 19", cursed)),
            TMPDIR=str(temporary),
        )

    for _ in range(2):
        worker = start()
        wait_until(lambda w=worker: not w.alive, seconds=60)  # type: ignore[misc]
    worker = start()
    job = installation.wait(cursed).job
    assert (job.state, job.error_code) == (JobState.FAILED, "message_ended_workers")
    assert "2 workers died" in (job.error_message or "")
    (found,) = [each for each in refused(installation) if each.deaths]
    assert (found.queue, found.deaths, found.job_id) == (pool_queue(pool), 2, cursed)
    other = installation.submit(jsonl(sentences(40)), chunk_rows=10, pool=pool)
    assert installation.wait(other).job.state is JobState.SUCCEEDED
    assert worker.alive
    worker.stop()


def _peak(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
