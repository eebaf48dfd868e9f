"""Promise P12: others' requests are answered and their jobs end during an attack, soon after it.

Each test prints how long the requests of another client take, idle and meanwhile, and how long one
of its jobs takes. The bounds that are asserted are generous: a busy machine keeps them, a server
that an attack has stopped does not.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import psycopg
import pytest
import redis
import sqlalchemy as sa

from api.client import Client
from benchmarks import bad_clients
from jobs.ledger import message_keys
from jobs.states import JobState
from jobs.worker_names import ProcessName
from tests.api.server.installation import Installation as Target
from tests.api.server.installation import new_tenant
from tests.faults.conftest import CHUNK_ROWS, CORPUS, Answers, assert_whole
from tests.support import bad_messages
from tests.support.hostile_parquet import HOSTILE
from tests.support.installation import KEY, Installation, Process, jsonl, sentences
from tests.support.others import Others, seconds_of_a_job
from tests.support.servers import Databases, Server
from tests.support.silence import silent_server
from tests.support.waiting import wait_until
from workers.app import PLAN_QUEUE, pool_queue

RECOVERY = 60.0
"""Seconds in which another client's job must have ended."""

MEASURED = 3.0
"""Seconds of each measurement at least."""

pytestmark = pytest.mark.long

Attack = Callable[[], AbstractContextManager[None]]


@pytest.fixture(scope="module")
def client(installation: Installation) -> Iterator[Client]:
    process = installation.start("api.server")
    with Client(f"http://127.0.0.1:{installation.settings.api_port}", KEY) as client:
        client.ping()
        yield client
    process.stop()


@pytest.fixture(scope="module")
def small(
    client: Client, installation: Installation, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, object]:
    """The job of another client."""
    corpus = tmp_path_factory.mktemp("small") / "corpus.jsonl"
    corpus.write_bytes(jsonl(sentences(20)))
    return {
        "kind": "classify",
        "corpus": {"file": client.upload(corpus)["id"]},
        "model": str(installation.model),
        "priority": 5,
    }


@pytest.fixture
def endure(
    client: Client,
    installation: Installation,
    small: dict[str, object],
    undisturbed: Answers,
    request: pytest.FixtureRequest,
) -> Callable[[Attack], None]:
    """Measure idle and under an attack; another job that is under way loses nothing."""

    def measure() -> tuple[Others, float]:
        end = time.monotonic() + MEASURED
        with Others(f"http://127.0.0.1:{installation.settings.api_port}", KEY) as others:
            took = seconds_of_a_job(client, small, limit=RECOVERY)
            time.sleep(max(0.0, end - time.monotonic()))
        return others, took

    def endure(attack: Attack) -> None:
        idle, undisturbed_job = measure()
        job_id = installation.submit(CORPUS, chunk_rows=CHUNK_ROWS)
        installation.wait_for_chunks(job_id, 5)
        with attack():
            attacked, job = measure()
        assert_whole(installation, job_id, undisturbed)
        print(f"\n{request.node.name}")  # noqa: T201 - figures for the reader
        print(f"  idle:     {idle}; a job took {undisturbed_job:.1f} s")  # noqa: T201
        print(f"  attacked: {attacked}; a job took {job:.1f} s")  # noqa: T201
        assert attacked.failed == 0

    return endure


@pytest.mark.parametrize("name", [name for name in bad_clients.ATTACKS if name != "none"])
def test_requests_of_a_bad_client_cost_others_little(
    installation: Installation, endure: Callable[[Attack], None], name: str
) -> None:
    target = Target(
        database_url=installation.settings.database_url,
        home=Path("/"),
        port=installation.settings.api_port,
    )

    @contextmanager
    def attack() -> Iterator[None]:
        with new_tenant(target) as attacker, bad_clients.attacking(name, attacker):
            yield

    endure(attack)


def test_messages_that_control_has_not_sent_cost_others_little(
    installation: Installation, valkey: Server, endure: Callable[[Attack], None]
) -> None:
    @contextmanager
    def attack() -> Iterator[None]:
        key = message_keys.read(installation.sessions)
        with redis.Redis.from_url(valkey.url) as broker:
            for queue in (PLAN_QUEUE, pool_queue("cpu")):
                genuine = bad_messages.signed("chunk", 0, queue=queue, key=key)
                broker.lpush(queue, *(each.raw for each in bad_messages.of(genuine)))
            yield

    endure(attack)


def test_a_broker_that_dies_and_is_silent_delays_jobs_and_no_request(
    valkey: Server, endure: Callable[[Attack], None]
) -> None:
    @contextmanager
    def attack() -> Iterator[None]:
        valkey.kill()
        with silent_server(sa.make_url(valkey.url).port or 0):
            time.sleep(5)  # the fault itself
        valkey.start()
        yield

    endure(attack)


def test_a_leader_that_is_stopped_delays_jobs_and_no_request(
    installation: Installation, endure: Callable[[Attack], None]
) -> None:
    @contextmanager
    def attack() -> Iterator[None]:
        second = installation.start_role("control")
        wait_until(lambda: sessions_of_control(installation) > 1, seconds=30)
        leading = leader(installation)
        leading.send(signal.SIGSTOP)
        yield
        assert leader(installation) is not leading
        leading.send(signal.SIGCONT)
        second.stop()

    endure(attack)


def leader(installation: Installation) -> Process:
    with psycopg.connect(installation.settings.database_url) as connection:
        row = connection.execute("SELECT leader FROM control_status").fetchone()
    assert row is not None
    pid = ProcessName.read(row[0]).pid
    return next(process for process in installation.processes if process.pid == pid)


def sessions_of_control(installation: Installation) -> int:
    with psycopg.connect(installation.settings.database_url) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND application_name = 'nightshift-control'"
        ).fetchone()
    assert row is not None
    return int(row[0])


def test_a_small_parquet_file_of_gigabytes_costs_others_little(
    installation: Installation, endure: Callable[[Attack], None]
) -> None:
    @contextmanager
    def attack() -> Iterator[None]:
        names = ["a dictionary of one text", "a page of zstd"]
        jobs = [installation.submit(HOSTILE[name](), filename="a.parquet") for name in names]
        yield
        for job_id in jobs:
            assert installation.wait(job_id).job.state is JobState.FAILED

    endure(attack)


def test_a_second_installation_on_the_machine_costs_others_little(
    installation: Installation,
    fresh_database: Databases,
    valkey: Server,
    tmp_path: Path,
    endure: Callable[[Attack], None],
) -> None:
    @contextmanager
    def attack() -> Iterator[None]:
        second = Installation(
            database_url=fresh_database(),
            redis_url=f"{valkey.url.rpartition('/')[0]}/1",
            home=tmp_path / "second",
            model=installation.model,
        )
        with second.running("control", "planner", "pool"):
            job_id = second.submit(jsonl(sentences(200)), chunk_rows=CHUNK_ROWS)
            yield
            second.wait(job_id)
            assert second.verify(job_id).problems == ()

    endure(attack)
