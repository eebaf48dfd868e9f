"""Promises P1 and P2 under SIGKILL: whatever process dies, every row has exactly one result."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import sqlalchemy as sa

from jobs.row_codes import RowCode
from jobs.states import JobState
from jobs.tables import Shard
from jobs.worker_names import ProcessName, WorkerName
from tests.faults.conftest import Answers, answers, assert_whole
from tests.support import deadly
from tests.support.installation import Installation, Process, jsonl, sentences
from tests.support.waiting import wait_until


def running(installation: Installation, role: str) -> Process:
    """The process of this role that was started last."""
    return next(
        process
        for process in reversed(installation.processes)
        if process.log.name.endswith(f"{role}.log") and process.alive
    )


def holder_of_a_chunk(installation: Installation, job_id: str) -> int:
    """The pid of a process that holds a chunk at this moment."""
    wait_until(lambda: installation.leased(job_id), seconds=30, every=0.002)
    owner = next((chunk.owner for chunk in installation.leased(job_id)), None)
    return ProcessName.read(owner).pid if owner else holder_of_a_chunk(installation, job_id)


def test_a_killed_pool_process_costs_nothing(
    installation: Installation, job: str, undisturbed: Answers
) -> None:
    os.kill(holder_of_a_chunk(installation, job), signal.SIGKILL)
    assert_whole(installation, job, undisturbed)


def test_a_killed_worker_costs_nothing(
    installation: Installation, job: str, undisturbed: Answers
) -> None:
    running(installation, "pool").kill()
    installation.start_role("pool")
    assert_whole(installation, job, undisturbed)


def test_a_job_whose_only_worker_was_killed_says_when_it_was_last_heard(
    installation: Installation, job: str, undisturbed: Answers
) -> None:
    worker = running(installation, "pool")
    worker.kill()
    said: set[str] = set()

    def names_the_worker() -> bool:
        reason = installation.job(job).waiting_reason or ""
        said.add(reason)
        found = re.search(r"no worker .* \((\S+) was last heard at", reason)
        name = WorkerName.read(found[1]) if found else None
        return name is not None and name.pid == worker.pid

    wait_until(names_the_worker, seconds=60, every=0.1)
    assert not any("busy" in reason for reason in said), said
    installation.start_role("pool")
    assert_whole(installation, job, undisturbed)


def test_a_small_job_ends_while_a_large_one_goes_on(installation: Installation, job: str) -> None:
    small = installation.submit(jsonl(sentences(4)), chunk_rows=5)
    assert installation.wait(small).job.state is JobState.SUCCEEDED
    large = installation.job(job)
    assert large.job.state is JobState.RUNNING
    assert large.counts.pending > 50
    installation.wait(job)


def test_a_killed_control_process_is_replaced_by_another(
    installation: Installation, job: str, undisturbed: Answers
) -> None:
    leader = running(installation, "control")
    installation.start_role("control")
    leader.kill()
    assert_whole(installation, job, undisturbed)


def test_a_killed_planner_is_replaced_without_a_row_planned_twice(
    installation: Installation, undisturbed: Answers
) -> None:
    rows = 20_000
    job_id = installation.submit(jsonl(sentences(rows)), chunk_rows=500)
    wait_until(lambda: _shards(installation, job_id) >= 2, seconds=30, every=0.002)
    assert installation.job(job_id).job.planned_at is None, "it was planned before the kill"
    running(installation, "planner").kill()
    installation.start_role("planner")
    view = installation.wait(job_id)
    assert view.job.state is JobState.SUCCEEDED
    assert installation.verify(job_id).problems == ()
    labels = answers(installation, job_id)
    assert {row: labels[row] for row in undisturbed} == undisturbed
    assert len(labels) == rows


def test_a_row_that_kills_its_process_becomes_one_error_row(
    installation: Installation, undisturbed: Answers
) -> None:
    texts = list(sentences(200))
    texts[137] = deadly.DEADLY
    path = str(Path(deadly.__file__).parent)
    worker = installation.start_role("pool", NIGHTSHIFT_POOL="deadly", PYTHONPATH=path)
    job_id = installation.submit(jsonl(texts), chunk_rows=4, pool="deadly")
    assert installation.wait(job_id, seconds=240).job.state is JobState.SUCCEEDED
    worker.stop()
    failed = [row for row in installation.results(job_id) if row["error_code"]]
    assert [(row["row"], row["error_code"]) for row in failed] == [
        (137, RowCode.ROW_CRASHED_WORKER)
    ]
    assert installation.verify(job_id).problems == ()
    labels = answers(installation, job_id)
    assert {row: labels[row] for row in range(137)} == {row: undisturbed[row] for row in range(137)}


def _shards(installation: Installation, job_id: str) -> int:
    with installation.sessions.begin() as session:
        count = sa.select(sa.func.count()).select_from(Shard).where(Shard.job_id == job_id)
        return session.scalar(count) or 0
