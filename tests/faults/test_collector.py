"""The garbage collector beside jobs that run, end, are retried and deleted, killed again and again.

Without a grace period: the order in which it lists and reads is all that protects what is in use.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
import sqlalchemy as sa

from jobs import collector, purger
from jobs.ledger import controls, deletions
from jobs.states import FINAL, JobState
from jobs.tables import Job
from tests.support.installation import PROJECT, Installation, jsonl, sentences
from tests.support.waiting import wait_until

ROWS, CHUNK_ROWS = 20, 5

COLLECTOR = """
import sys
from datetime import timedelta
from jobs import collector, database, objects
sessions = database.sessions(database.connect(sys.argv[1]))
store = objects.connect(sys.argv[2])
print("ready", flush=True)
while True:
    collector.collect(sessions, store, grace=timedelta(0), dry_run=False)
"""


@contextmanager
def purging(installation: Installation) -> Iterator[None]:
    """What the thread of the API does: removes deleted jobs."""
    over = threading.Event()

    def run() -> None:
        while not over.wait(0.05):
            purger.purge_deleted(installation.sessions, installation.store)

    thread = threading.Thread(target=run)
    thread.start()
    yield
    over.set()
    thread.join()


def collecting(installation: Installation) -> subprocess.Popen[str]:
    settings = installation.settings
    process = subprocess.Popen(
        [sys.executable, "-c", COLLECTOR, settings.database_url, settings.object_store_url],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def plant(installation: Installation, job_id: str, number: int) -> None:
    """What a process that lost its lease leaves of a job."""
    for name in (f"parts/{number:012d}-{number}-99.parquet", f"output/results-{number + 90}.csv"):
        installation.store.put(f"jobs/{job_id}/{name}", b"late")


@pytest.mark.parametrize(
    ("jobs", "most_kills"), [(6, 2), pytest.param(50, 10, marks=pytest.mark.long)]
)
def test_the_collector_is_killed_at_random_beside_jobs_and_takes_nothing_that_is_in_use(
    installation: Installation, jobs: int, most_kills: int
) -> None:
    chance = random.Random(8)
    corpus = jsonl(sentences(ROWS))
    made = [installation.submit(corpus, chunk_rows=CHUNK_ROWS) for _ in range(jobs)]
    cancelled, deleted = made[2 : jobs // 3], made[:2]
    kills = 0
    with purging(installation):
        process = collecting(installation)
        while kills < most_kills or not all_ended(installation, made):
            time.sleep(chance.uniform(0.02, 0.4))
            if kills < most_kills:
                process.send_signal(signal.SIGKILL)
                process.wait()
                process = collecting(installation)
                kills += 1
            disturb(installation, made, cancelled, deleted, number=kills)
        for job_id in cancelled:
            retry(installation, job_id)
        for job_id in made:
            installation.wait(job_id) if job_id not in deleted else None
        delete_all(installation, deleted)
        for job_id in made:
            plant(installation, job_id, 7)
        process.kill()
        process.wait()
    wait_until(lambda: nothing_to_purge(installation), seconds=60)
    assert_everything_is_whole(installation, [each for each in made if each not in deleted])
    assert_nothing_is_left_over(installation, deleted, planted=2 * (jobs - len(deleted)))


def disturb(
    installation: Installation,
    made: list[str],
    cancelled: list[str],
    deleted: list[str],
    *,
    number: int,
) -> None:
    plant(installation, made[number % len(made)], number)
    if number < len(cancelled):
        with installation.sessions.begin() as session:
            job = session.get_one(Job, cancelled[number])
            if job.state not in FINAL:
                controls.cancel(session, job.id, project_id=PROJECT)
    delete_all(installation, deleted[: number // 2])


def delete_all(installation: Installation, job_ids: list[str]) -> None:
    """Those that have ended and are there."""
    for job_id in job_ids:
        with installation.sessions.begin() as session:
            job = session.get_one(Job, job_id)
            if job.state in FINAL and job.deleted_at is None:
                deletions.delete_job(session, job_id, project_id=PROJECT)


def retry(installation: Installation, job_id: str) -> None:
    with installation.sessions.begin() as session:
        if session.get_one(Job, job_id).state is JobState.CANCELLED:
            controls.retry(session, job_id, project_id=PROJECT)


def all_ended(installation: Installation, job_ids: list[str]) -> bool:
    with installation.sessions.begin() as session:
        left = sa.select(Job.id).where(Job.id.in_(job_ids), Job.state.not_in(FINAL)).limit(1)
        return session.scalar(left) is None


def nothing_to_purge(installation: Installation) -> bool:
    purger.purge_deleted(installation.sessions, installation.store)
    with installation.sessions.begin() as session:
        return session.scalar(sa.select(Job.id).where(Job.purge_at.is_not(None)).limit(1)) is None


def assert_everything_is_whole(installation: Installation, job_ids: list[str]) -> None:
    for job_id in job_ids:
        assert installation.wait(job_id).job.state is JobState.SUCCEEDED, installation.logs()
        report = installation.verify(job_id)
        assert (report.ok, report.rows_output) == (True, ROWS), (job_id, report)


def assert_nothing_is_left_over(
    installation: Installation, deleted: list[str], *, planted: int
) -> None:
    def collect(*, dry_run: bool) -> collector.Report:
        found = collector.collect(
            installation.sessions, installation.store, grace=timedelta(0), dry_run=dry_run
        )
        assert found is not None
        return found

    first = collect(dry_run=False)
    assert first.removed == first.garbage.objects >= planted
    second = collect(dry_run=True)
    assert (second.garbage.objects, second.unknown.objects) == (0, 0), second
    collector.find_missing(installation.sessions, installation.store, second, mark=False)
    assert second.missing == []
    for job_id in deleted:
        assert list(installation.store.keys(f"jobs/{job_id}")) == []
