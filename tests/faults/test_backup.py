"""A backup while work is under way, the end of the installation, and its life elsewhere."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import sqlalchemy as sa

from api import cli
from api.stack import postgres as postgres_server
from jobs.states import ChunkState, JobState, RunState
from jobs.tables import Chunk, Job
from tests.faults.conftest import answers
from tests.support.installation import Installation, jsonl, sentences
from tests.support.installations import NewInstallation
from tests.support.servers import Server
from tests.support.stopped import stopped_with_a_chunk
from tests.support.tiny_models import tiny_classifier
from tests.workers.gang.trainer import Trainer

ROWS = 160
CORPUS = jsonl(sentences(ROWS))
PATIENT = 300
"""Seconds of a lease: no chunk of a stopped process is rescued before the end."""


@pytest.fixture
def doomed(new_installation: NewInstallation) -> Iterator[Installation]:
    """An installation that is destroyed."""
    made = new_installation(tiny_classifier, lease_seconds=PATIENT, worker_processes=2)
    with made.running("control", "planner", "pool") as installation:
        yield installation


def nightshift(monkeypatch: pytest.MonkeyPatch, url: str, store: str, *arguments: str) -> int:
    """Run a command of an operator on this database and this store."""
    with monkeypatch.context() as environment:
        environment.setenv("NIGHTSHIFT_DATABASE_URL", url)
        environment.setenv("NIGHTSHIFT_OBJECT_STORE_URL", store)
        return cli.main(arguments)


def processes(installation: Installation) -> list[psutil.Process]:
    """Every process, those that hosts and pools have started as well."""
    parents = [psutil.Process(each.pid) for each in installation.processes if each.alive]
    return [each for one in parents for each in (one, *one.children(recursive=True))]


def destroy(installation: Installation, postgres: Server) -> None:
    for process in processes(installation):
        process.kill()
    for each in installation.processes:
        each.stop()
    installation.sessions.kw["bind"].dispose()
    name = installation.settings.database_url.rpartition("/")[2]
    with psycopg.connect(postgres_server.maintenance(postgres.url), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
    shutil.rmtree(installation.home / "objects")


def empty_database(postgres: Server, name: str) -> str:
    with psycopg.connect(postgres_server.maintenance(postgres.url), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return f"{postgres.url.rpartition('/')[0]}/{name}"


@pytest.mark.long
@pytest.mark.timeout(900)
def test_what_was_committed_before_a_backup_is_there_after_it_and_what_was_under_way_goes_on(
    doomed: Installation,
    postgres: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended = doomed.submit(CORPUS, chunk_rows=40)
    assert doomed.wait(ended, seconds=300).job.state is JobState.SUCCEEDED
    trainer = Trainer(doomed)
    host = trainer.start("alpha")
    training = trainer.submit(train={"epochs": 4, "checkpoint_steps": 5})
    trainer.wait_for_checkpoint(training)
    for process in (psutil.Process(host.pid), *psutil.Process(host.pid).children(recursive=True)):
        process.suspend()  # so that it has not ended when the backup is taken
    running = doomed.submit(CORPUS, chunk_rows=2)
    stopped_with_a_chunk(doomed, running)  # the other process of the pool goes on
    queued = doomed.submit(CORPUS, chunk_rows=50, pool="elsewhere")
    checkpoints = [each.step for each in trainer.checkpoints(training)]

    place = str(tmp_path / "backup")
    old = doomed.settings
    assert nightshift(monkeypatch, old.database_url, old.object_store_url, "backup", place) == 0
    destroy(doomed, postgres)

    url = empty_database(postgres, "restored")
    home = tmp_path / "elsewhere"
    store = (home / "objects").as_uri()
    assert nightshift(monkeypatch, url, store, "restore", place) == 0
    assert nightshift(monkeypatch, url, store, "restore", place) != 0, "the database is used"
    restored = Installation(
        database_url=url,
        redis_url=old.redis_url,
        home=home,
        model=doomed.model,
        lease_seconds=PATIENT,
        redispatch_seconds=PATIENT,
    )
    assert restored.leased(running) == []
    assert {job_id: restored.job(job_id).job.state for job_id in (ended, running, training)} == {
        ended: JobState.SUCCEEDED,
        running: JobState.RUNNING,
        training: JobState.RUNNING,
    }
    with restored.running("control", "planner", "pool"):
        restored.start_role("pool", NIGHTSHIFT_POOL="elsewhere")
        again = Trainer(restored)
        again.start("beta")
        for job_id in (running, queued, training):
            assert restored.wait(job_id, seconds=300).job.state is JobState.SUCCEEDED, again.logs()
        for job_id in (ended, running, queued):
            assert restored.verify(job_id).problems == ()
            assert answers(restored, job_id) == answers(restored, ended)
        first, *later = again.runs(training)
        assert first.state is RunState.PREEMPTED
        assert {run.state for run in later} == {RunState.SUCCEEDED}
        assert later[0].checkpoint_id is not None, "it began at the first step"
        assert {each.step for each in again.checkpoints(training)} >= set(checkpoints[-1:])
        assert again.version(training).lineage["job"] == training
    with restored.sessions.begin() as session:
        crashes = sa.select(sa.func.sum(Chunk.crashes)).where(Chunk.state == ChunkState.DONE)
        assert session.scalar(crashes) == 0, "a chunk was blamed for the end of its worker"
        assert session.scalar(sa.select(sa.func.sum(Job.faults))) == 0
    restored.sessions.kw["bind"].dispose()
