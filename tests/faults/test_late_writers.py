"""Promises P2 and P3: who lost its lease, or comes twice, changes nothing."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
import redis
import sqlalchemy as sa

from jobs.ledger import message_keys
from jobs.queries import refused_messages
from jobs.tables import Chunk
from tests.faults.conftest import CORPUS, Answers, assert_whole
from tests.support import bad_messages
from tests.support.installation import Installation
from tests.support.stopped import stopped_with_a_chunk
from tests.support.waiting import wait_until
from workers import app
from workers.app import pool_queue


def test_a_worker_that_wakes_up_after_its_lease_was_taken_commits_nothing(
    installation: Installation, undisturbed: Answers
) -> None:
    job_id = installation.submit(CORPUS, chunk_rows=50)
    zombie, chunk = stopped_with_a_chunk(installation, job_id)
    second = installation.start_role("pool")
    wait_until(lambda: _chunk(installation, chunk.id).fence > chunk.fence, seconds=60)
    os.kill(zombie, signal.SIGCONT)
    assert_whole(installation, job_id, undisturbed)
    late = _chunk(installation, chunk.id)
    assert late.part_key is not None
    assert late.part_key.endswith(f"-{late.fence}.parquet")
    assert late.fence > chunk.fence
    second.stop()


def test_the_same_messages_delivered_three_times_do_no_harm(
    installation: Installation, job: str, undisturbed: Answers
) -> None:
    second = installation.start_role("pool")
    queue, key = pool_queue("cpu"), message_keys.read(installation.sessions)
    with installation.sessions.begin() as session:
        chunk_ids = session.scalars(sa.select(Chunk.id).where(Chunk.job_id == job)).all()
    with redis.Redis.from_url(installation.settings.redis_url) as broker:
        for chunk_id in chunk_ids:
            message = bad_messages.signed("chunk", chunk_id, queue=queue, key=key)
            broker.lpush(queue, message, message, message)
    assert_whole(installation, job, undisturbed)
    second.stop()


def test_a_pickled_message_is_refused_and_never_unpickled(
    installation: Installation, job: str, undisturbed: Answers, tmp_path: Path
) -> None:
    trace, known = tmp_path / "executed", refused(installation)
    celery = app.make(installation.settings.redis_url)
    celery.conf.update(task_serializer="pickle")
    celery.send_task("chunk", args=(_Touch(trace),), queue=pool_queue("cpu"))
    wait_until(lambda: refused(installation) > known, seconds=30)
    assert_whole(installation, job, undisturbed)
    assert not trace.exists()


def refused(installation: Installation) -> int:
    with installation.sessions.begin() as session:
        return len(refused_messages.latest(session, limit=10_000))


class _Touch:
    """Unpickled, it would make a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self._path,)


def test_parts_that_cannot_be_written_wait_and_say_why(
    installation: Installation, undisturbed: Answers
) -> None:
    job_id = installation.submit(CORPUS, chunk_rows=50)
    blocker = installation.home / "objects" / "jobs" / job_id / "parts"
    blocker.parent.mkdir(parents=True, exist_ok=True)
    blocker.write_text("a file where the folder of parts should be")
    wait_until(lambda: "failed" in (installation.job(job_id).waiting_reason or ""), seconds=60)
    blocker.unlink()
    assert_whole(installation, job_id, undisturbed)


def test_a_full_disk_costs_nothing_once_there_is_room(
    installation: Installation, undisturbed: Answers
) -> None:
    job_id = installation.submit(CORPUS, chunk_rows=25)
    folder = installation.home / "objects" / "jobs" / job_id / "parts"
    _mount_tiny(folder)
    try:
        wait_until(lambda: installation.job(job_id).counts.failing > 0, seconds=60)
        assert "No space left" in (installation.job(job_id).counts.last_error or "")
        subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True)
        assert_whole(installation, job_id, undisturbed)
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def _mount_tiny(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")


def _chunk(installation: Installation, chunk_id: int) -> Chunk:
    with installation.sessions.begin() as session:
        return session.get_one(Chunk, chunk_id)
