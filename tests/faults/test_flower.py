"""Flower shows what failed as failed, what was not done as not done, and the queues there are."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from jobs.ledger import controls
from jobs.states import JobState
from jobs.worker_names import ProcessName
from tests.faults.conftest import CORPUS, Answers, assert_whole
from tests.support.installation import PROJECT, Installation, jsonl, sentences
from tests.support.waiting import wait_until
from tests.workers.flower import shown

Flower = httpx.Client


def history(installation: Installation) -> dict[str, str]:
    """Variables of a Flower that remembers."""
    file = installation.home / "flower-history"
    return {"FLOWER_PERSISTENT": "true", "FLOWER_DB": str(file)}


@pytest.fixture(scope="module")
def flower(installation: Installation, undisturbed: Answers) -> Iterator[Flower]:  # noqa: ARG001
    with shown.flower(installation, **history(installation)) as client:
        wait_until(lambda: "flower_worker_online{" in client.get("/metrics").text, seconds=60)
        yield client


def tasks(flower: Flower, words: str) -> list[dict[str, Any]]:
    """Tasks that have these words in what their message says."""
    found = flower.get("/api/tasks", params={"limit": 10_000}).json()
    return [task for task in found.values() if words in str(task["args"])]


def kill_process(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def states(flower: Flower, words: str) -> set[str]:
    return {task["state"] for task in tasks(flower, words)}


def test_planning_that_failed_is_a_failure_with_its_reason(
    installation: Installation, flower: Flower
) -> None:
    job_id = installation.submit(jsonl(sentences(5)), model=str(installation.home / "no-model"))
    assert installation.wait(job_id).job.state is JobState.FAILED
    wait_until(lambda: "FAILURE" in states(flower, job_id), seconds=20)
    assert "SUCCESS" not in states(flower, job_id)
    (task,) = [each for each in tasks(flower, job_id) if each["state"] == "FAILURE"]
    assert task["args"].startswith("plan · classify · ")
    assert task["result"].startswith("failed the job: ")
    assert "no-model" in task["exception"]
    assert task["traceback"] == task["exception"]


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
    assert results <= {"not claimed: the job is paused", "stopped: the job is paused"}
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


def text(flower: Flower, path: str) -> str:
    """The page, without its tags and line breaks."""
    answer = flower.get(path)
    assert answer.status_code == 200, answer.text
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", answer.text))


def test_the_jobs_tab_says_why_a_job_waits(installation: Installation, flower: Flower) -> None:
    job_id = installation.submit(jsonl(sentences(3)), pool="nowhere", name="waits for a worker")

    def said() -> str:
        return text(flower, f"/jobs?text={job_id}")

    wait_until(lambda: "no worker of pool" in said(), seconds=30)
    assert "waits for a worker" in said()
    assert "0 of 3 rows" in said()


def test_the_queues_tab_has_what_waits_in_the_ledger_and_in_redis(
    installation: Installation, flower: Flower
) -> None:
    installation.submit(jsonl(sentences(40)), chunk_rows=1, pool="unserved")
    row = re.compile(r"pool\.unserved 1 40 32 32 32 \d+ s ")
    wait_until(lambda: row.search(text(flower, "/queues")), seconds=30)


def test_a_task_leads_to_its_job_and_the_job_to_its_tasks(
    installation: Installation, flower: Flower
) -> None:
    job_id = installation.submit(jsonl(sentences(10)), chunk_rows=5, name="short")
    assert installation.wait(job_id).job.state is JobState.SUCCEEDED
    wait_until(lambda: len(tasks(flower, job_id)) >= 4, seconds=20)
    words = {task["args"].rpartition(" · ")[0].split(" · ")[0] for task in tasks(flower, job_id)}
    assert {"plan", "finalize", "chunk 1 of 2", "chunk 2 of 2"} >= words - {"chunk 1", "chunk 2"}
    page = flower.get(f"/jobs/{job_id}").text
    (link, *_) = re.findall(r'href="(/task/[^"]+)"', page)
    assert f'href="/jobs/{job_id}"' in flower.get(link).text
    assert "rows 5 to 9" in text(flower, f"/jobs/{job_id}")


def test_a_process_that_was_killed_says_how_it_died(
    installation: Installation, flower: Flower
) -> None:
    job_id = installation.submit(jsonl(sentences(600)), chunk_rows=5)
    installation.wait_for_chunks(job_id, 5)

    def died() -> set[str]:
        return {each["traceback"] for each in tasks(flower, job_id) if each["state"] == "FAILURE"}

    def kill() -> bool:
        """The process may have committed its chunk meanwhile: then another one is killed."""
        if not died():
            for chunk in installation.leased(job_id)[:1]:
                kill_process(ProcessName.read(str(chunk.owner)).pid)
        return bool(died())

    wait_until(kill, seconds=100, every=1)
    assert died() == {"its process died: signal 9 (SIGKILL)"}
    assert installation.wait(job_id, seconds=240).job.state is JobState.SUCCEEDED
    assert installation.verify(job_id).problems == ()


def test_workers_are_named_by_pool_and_their_page_is_linked(flower: Flower) -> None:
    (ours,) = re.findall(r'href="(/pools/cpu[^"]*)"', flower.get("/pools").text)
    (celerys,) = re.findall(r'href="(/worker/cpu[^"]*)"', flower.get(ours).text)
    assert flower.get(celerys).status_code == 200


def test_history_survives_a_restart(installation: Installation) -> None:
    """Two Flowers, one after the other; the first ends as a supervisor ends it."""
    own = {**history(installation), "FLOWER_DB": str(installation.home / "history-of-two")}
    with shown.flower(installation, **own) as first:
        wait_until(lambda: "flower_worker_online{" in first.get("/metrics").text, seconds=60)
        job_id = installation.submit(jsonl(sentences(5)))
        assert installation.wait(job_id).job.state is JobState.SUCCEEDED
        wait_until(lambda: "SUCCESS" in states(first, job_id), seconds=20)
    with shown.flower(installation, **own) as second:
        assert "SUCCESS" in states(second, job_id)
