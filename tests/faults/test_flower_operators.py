"""What an operator does in Flower under a running job: nothing is lost, and the job says who.

A lease lasts ten minutes here: a chunk that waited for its end would fail the test.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from jobs.states import ChunkState, JobState
from jobs.tables import Chunk, Event, Order, Worker
from jobs.worker_names import holder
from tests.faults.conftest import CHUNK_ROWS, CORPUS, Answers, answers
from tests.support.hung import ABLE_TO_HANG, hung_with_a_chunk
from tests.support.installation import Installation
from tests.support.installations import NewInstallation
from tests.support.tiny_models import tiny_classifier
from tests.support.waiting import wait_until
from tests.workers.flower import shown

pytestmark = pytest.mark.long

USER = shown.LOGIN[0]


@pytest.fixture(scope="module")
def served(new_installation: NewInstallation) -> Iterator[Installation]:
    """One worker with two processes that can hang."""
    with new_installation(
        tiny_classifier, lease_seconds=600, redispatch_seconds=3, worker_processes=2
    ).running("control", "planner") as installation:
        installation.start_role("pool", **ABLE_TO_HANG)
        yield installation


@pytest.fixture(scope="module")
def expected(served: Installation) -> Answers:
    """The label of every row when no operator does anything."""
    job_id = served.submit(CORPUS, chunk_rows=CHUNK_ROWS)
    assert served.wait(job_id).job.state is JobState.SUCCEEDED
    return answers(served, job_id)


@pytest.fixture(scope="module")
def flower(served: Installation, expected: Answers) -> Iterator[httpx.Client]:  # noqa: ARG001
    with shown.flower(served, FLOWER_READ_ONLY="false") as client:
        wait_until(lambda: "flower_worker_online{" in client.get("/metrics").text, seconds=60)
        yield client


@pytest.fixture
def job(served: Installation, flower: httpx.Client) -> str:  # noqa: ARG001 - Flower sees all of it
    job_id = served.submit(CORPUS, chunk_rows=CHUNK_ROWS)
    served.wait_for_chunks(job_id, 5)
    return job_id


def test_a_chunk_that_hangs_is_released_and_its_process_ended(
    served: Installation, flower: httpx.Client, job: str, expected: Answers
) -> None:
    _, chunk = hung_with_a_chunk(served, job)
    task = running_task(flower, job, chunk)
    answer = flower.post(f"/api/task/revoke/{task}", params={"terminate": "true"})
    assert answer.status_code == 200, answer.text
    assert "another process computes it" in answer.json()["message"]
    order = settled(served, "end_process")
    assert "did not stop" in str(order.result)
    assert_whole(served, job, expected)
    assert told(served, job) == [("release the chunk", USER)]
    wait_until(lambda: state(flower, task) == "REVOKED", seconds=30)
    again = flower.post(f"/api/task/revoke/{task}", params={"terminate": "true"})
    assert again.status_code == 409


def test_a_pool_that_is_restarted_releases_what_it_holds(
    served: Installation, flower: httpx.Client, job: str, expected: Answers
) -> None:
    pid, chunk = hung_with_a_chunk(served, job)
    task = running_task(flower, job, chunk)
    answer = flower.post(f"/api/worker/pool/restart/{holder(str(chunk.owner))}")
    assert answer.status_code == 200, answer.text
    assert "2 processes were ended" in str(settled(served, "restart_pool").result)
    assert_whole(served, job, expected)
    assert ("restart the pool", USER) in told(served, job)
    wait_until(lambda: state(flower, task) == "REVOKED", seconds=30)
    assert USER in flower.get(f"/api/task/info/{task}").json()["result"]
    assert pid not in {process_of(each) for each in served.leased(job)}


def test_a_pool_grows_and_shrinks_while_it_works(
    served: Installation, flower: httpx.Client, job: str, expected: Answers
) -> None:
    hung_with_a_chunk(served, job)  # so that the job does not end before it is shrunk
    name = worker(served).name
    assert flower.post(f"/api/worker/pool/grow/{name}", params={"n": "2"}).status_code == 200
    wait_until(lambda: worker(served).slots == 4, seconds=60)
    assert flower.post(f"/api/worker/pool/shrink/{name}", params={"n": "3"}).status_code == 200
    wait_until(lambda: worker(served).slots == 1, seconds=60)
    assert flower.post(f"/api/worker/pool/shrink/{name}").status_code == 200
    assert "would have 0" in str(settled(served, "shrink", state="refused").result)
    assert flower.post(f"/api/worker/pool/grow/{name}").status_code == 200
    wait_until(lambda: worker(served).slots == 2, seconds=60)
    assert flower.post(f"/api/worker/pool/restart/{name}").status_code == 200  # one may still hang
    settled(served, "restart_pool")
    assert_whole(served, job, expected)
    assert ("shrink the pool", USER) in told(served, job)


def test_a_worker_is_shut_down_and_a_chunk_that_keeps_it_is_released(
    served: Installation, flower: httpx.Client, job: str, expected: Answers
) -> None:
    """It drains and would wait for the process that hangs."""
    process = next(each for each in served.processes if "pool" in each.log.name)
    _, chunk = hung_with_a_chunk(served, job)
    task, name = running_task(flower, job, chunk), worker(served).name
    assert flower.post(f"/api/worker/shutdown/{name}").status_code == 200
    settled(served, "shut_down")
    wait_until(lambda: flower.post(f"/api/worker/shutdown/{name}").status_code == 404, seconds=60)
    answer = flower.post(f"/api/task/revoke/{task}", params={"terminate": "true"})
    assert answer.status_code == 200, answer.text
    wait_until(lambda: not process.alive, seconds=120)
    assert process.exit_code == 0
    served.start_role("pool", **ABLE_TO_HANG)
    assert_whole(served, job, expected)
    assert told(served, job) == [("shut down", USER), ("release the chunk", USER)]


def assert_whole(installation: Installation, job_id: str, expected: Answers) -> None:
    """Every row has its result, and no chunk counts a crash or a failure."""
    view = installation.wait(job_id, seconds=240)
    assert view.job.state is JobState.SUCCEEDED, installation.logs()
    assert installation.verify(job_id).problems == ()
    assert answers(installation, job_id) == expected
    with installation.sessions.begin() as session:
        blamed = sa.or_(Chunk.crashes > 0, Chunk.load_crashes > 0, Chunk.failures > 0)
        query = sa.select(sa.func.count()).where(Chunk.job_id == job_id, blamed)
        assert session.scalar(query) == 0
        unended = Chunk.state != ChunkState.DONE
        query = sa.select(sa.func.count()).where(Chunk.job_id == job_id, unended)
        assert session.scalar(query) == 0


def told(installation: Installation, job_id: str) -> list[tuple[str, str]]:
    """What operators did to the job, and who they were."""
    with installation.sessions.begin() as session:
        query = sa.select(Event).where(Event.job_id == job_id, Event.type == "operator")
        found = session.scalars(query.order_by(Event.id))
        return [(each.data["action"], each.data["by"]) for each in found]


def settled(installation: Installation, action: str, *, state: str = "done") -> Order:
    """The newest order of this kind, once it has come to this."""
    newest = sa.select(Order).where(Order.action == action).order_by(Order.id.desc()).limit(1)

    def found() -> Order | None:
        with installation.sessions.begin() as session:
            order = session.scalar(newest)
        return order if order is not None and order.state == state else None

    wait_until(found, seconds=60)
    order = found()
    assert order is not None
    return order


def worker(installation: Installation) -> Worker:
    with installation.sessions.begin() as session:
        return session.scalars(sa.select(Worker).where(Worker.pool == "cpu")).one()


def running_task(flower: httpx.Client, job_id: str, chunk: Chunk) -> str:
    """The id of the task that works on a chunk, once Flower has heard of it."""
    last = chunk.first_row + chunk.rows - 1
    words = f"rows {chunk.first_row} to {last} "

    def found() -> list[str]:
        tasks: dict[str, dict[str, Any]] = flower.get("/api/tasks", params={"limit": 10_000}).json()
        return [
            task_id
            for task_id, task in tasks.items()
            if words in f"{task['args']} "
            and job_id in str(task["args"])
            and task["state"] == "STARTED"
        ]

    wait_until(found, seconds=30)
    (task,) = found()
    return task


def state(flower: httpx.Client, task: str) -> str:
    return str(flower.get(f"/api/task/info/{task}").json()["state"])


def process_of(chunk: Chunk) -> int:
    return int(str(chunk.owner).rpartition(":")[2])
