"""Flower shows what failed as failed, what was not done as not done, and the queues there are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from api.stack import ports
from jobs.ledger import controls
from jobs.states import JobState
from tests.faults.conftest import CORPUS, Answers, assert_whole
from tests.support.installation import PROJECT, Installation, jsonl, sentences
from tests.support.waiting import wait_until

Flower = httpx.Client


@pytest.fixture(scope="module")
def flower(installation: Installation, undisturbed: Answers) -> Iterator[Flower]:  # noqa: ARG001
    port = ports.choose()
    process = installation.start(
        "workers.processes", "flower", f"--port={port}", NIGHTSHIFT_FLOWER_BASIC_AUTH="user:word"
    )
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", auth=("user", "word")) as client:
        wait_until(lambda: answers(client), seconds=60)
        yield client
    process.stop()


def answers(flower: Flower) -> bool:
    """Whether it hears the events of workers."""
    try:
        return "flower_worker_online{" in flower.get("/metrics").text
    except httpx.TransportError:
        return False


def tasks(flower: Flower, words: str) -> list[dict[str, Any]]:
    """Tasks that have these words as their arguments, or in them."""
    found = flower.get("/api/tasks", params={"limit": 10_000}).json()
    return [task for task in found.values() if words in str(task["args"])]


def states(flower: Flower, words: str) -> set[str]:
    return {task["state"] for task in tasks(flower, words)}


def test_planning_that_failed_is_a_failure_with_its_reason(
    installation: Installation, flower: Flower
) -> None:
    job_id = installation.submit(jsonl(sentences(5)), model=str(installation.home / "no-model"))
    assert installation.wait(job_id).job.state is JobState.FAILED
    wait_until(lambda: "FAILURE" in states(flower, f"plan {job_id}"), seconds=20)
    assert "SUCCESS" not in states(flower, f"plan {job_id}")
    (task,) = [each for each in tasks(flower, f"plan {job_id}") if each["state"] == "FAILURE"]
    assert task["result"].startswith("failed the job: ")
    assert "no-model" in task["exception"]
    assert not task["traceback"]


def test_chunks_of_a_paused_job_are_not_shown_as_done(
    installation: Installation, flower: Flower, undisturbed: Answers
) -> None:
    job_id = installation.submit(CORPUS, chunk_rows=5)
    installation.wait_for_chunks(job_id, 5)
    with installation.sessions.begin() as session:
        controls.pause(session, job_id, project_id=PROJECT)
    wait_until(lambda: "REVOKED" in states(flower, job_id), seconds=20)
    results = {task["result"] for task in tasks(flower, job_id) if task["state"] == "REVOKED"}
    assert "not claimed: the job is paused" in results
    assert results <= {
        "not claimed: the job is paused",
        "not claimed: the chunk is done",
        "stopped: the job is paused",
    }
    with installation.sessions.begin() as session:
        controls.resume(session, job_id, project_id=PROJECT)
    assert_whole(installation, job_id, undisturbed)


def test_the_broker_tab_lists_our_queues_with_what_waits_in_them(
    installation: Installation, flower: Flower
) -> None:
    installation.submit(jsonl(sentences(12)), chunk_rows=1, pool="elsewhere")

    def queues() -> dict[str, int]:
        found = flower.get("/api/queues/length").json()["active_queues"]
        return {queue["name"]: queue["messages"] for queue in found}

    wait_until(lambda: queues().get("pool.elsewhere") == 12, seconds=30)
    assert {"plan", "pool.cpu"} <= queues().keys()
    assert "celery" not in queues()
    assert "pool.elsewhere" in flower.get("/broker").text
