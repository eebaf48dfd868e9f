"""How a worker handles each kind of fault in a chunk; the worker runs in the test's process."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import sqlalchemy as sa

from jobs.ledger import controls
from jobs.states import ChunkState, JobState
from jobs.tables import Chunk
from tests.jobs.ledger.building import PROJECT
from tests.support.tiny_models import tiny_classifier
from tests.workers.bulk.conftest import Workshop, jsonl
from workers import draining
from workers.bulk import chunk_worker, planner
from workers.context import Context
from workers.inference.engine_cache import EngineCache

CORPUS = jsonl({"text": f"text {row}"} for row in range(4))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_classifier(tmp_path_factory.mktemp("model") / "model"))


@pytest.fixture
def job_id(workshop: Workshop, context: Context, model: str) -> str:
    """A planned job of one chunk."""
    job_id = workshop.ledger.accept(corpus={"file": workshop.upload(CORPUS)}, model=model)
    assert planner.plan(job_id, context=context).done
    return job_id


def run(workshop: Workshop, context: Context, job_id: str) -> Chunk:
    """Let a worker run the job's only chunk; returns the chunk afterwards."""
    chunk_id = workshop.ledger.only_chunk(job_id)
    workshop.ledger.run_out(chunk_id)
    chunk_worker.run(chunk_id, context=context)
    return workshop.ledger.chunk(chunk_id)


def test_a_torn_shard_fails_the_job_at_once(
    workshop: Workshop, context: Context, job_id: str
) -> None:
    (shard,) = workshop.store.keys(f"jobs/{job_id}/shards")
    data = bytearray(workshop.store.get(shard))
    data[len(data) // 3] ^= 0xFF
    workshop.store.put(shard, bytes(data))
    chunk, job = run(workshop, context, job_id), workshop.ledger.job(job_id)
    assert (job.state, job.error_code) == (JobState.FAILED, "damaged")
    assert f"the shard {shard} is damaged" in (job.error_message or "")
    assert chunk.crashes == 0


def test_a_chunk_whose_store_fails_is_tried_again_and_shows_the_reason(
    workshop: Workshop, context: Context, job_id: str
) -> None:
    home = Path(workshop.settings.object_store_url.removeprefix("file://"))
    parts = home / "jobs" / job_id / "parts"
    parts.write_text("no folder")
    for tries in (1, 2):
        chunk = run(workshop, context, job_id)
        assert (chunk.state, chunk.failures, chunk.crashes) == (ChunkState.PENDING, tries, 0)
        assert "Not a directory" in (chunk.last_error or "")
        assert str(home) not in (chunk.last_error or "")
    parts.unlink()
    done = run(workshop, context, job_id)
    assert (done.state, done.failing_since) == (ChunkState.DONE, None)
    assert done.part_sha256 is not None


def test_an_exception_of_the_engine_fails_the_job_after_its_tries_and_splits_nothing(
    workshop: Workshop, context: Context, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise TypeError("a bug of the engine")

    monkeypatch.setattr(EngineCache, "engine", broken)
    for tries in range(1, context.settings.fault_tries + 1):
        assert workshop.ledger.job(job_id).state is JobState.RUNNING
        chunk = run(workshop, context, job_id)
        assert (chunk.state, chunk.engine_faults, chunk.crashes) == (ChunkState.PENDING, tries, 0)
    job = workshop.ledger.job(job_id)
    assert (job.state, job.error_code) == (JobState.FAILED, "unexpected_error")
    assert "TypeError: a bug of the engine (rows 0 to 3" in (job.error_message or "")


def test_a_chunk_that_a_draining_worker_cannot_end_in_time_is_released(
    workshop: Workshop,
    context: Context,
    job_id: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv(draining.FILE, "")  # restored afterwards
    draining.prepare()
    draining.begin()
    monkeypatch.setattr(draining, "FINISH_SECONDS", 0.0)
    chunk = run(workshop, context, job_id)
    assert (chunk.state, chunk.failures, chunk.crashes) == (ChunkState.PENDING, 0, 0)
    monkeypatch.setattr(draining, "FINISH_SECONDS", 60.0)
    assert run(workshop, context, job_id).state is ChunkState.DONE
    draining.end()
    assert list(tmp_path.rglob("draining-*")) == []


def test_a_retry_over_a_damaged_part_computes_every_row(
    workshop: Workshop, context: Context, job_id: str
) -> None:
    first = run(workshop, context, job_id)
    assert first.part_key is not None
    with workshop.ledger.sessions.begin() as session:
        session.execute(sa.update(Chunk).where(Chunk.id == first.id).values(rows_failed=1))
        controls.cancel(session, job_id, project_id=PROJECT)
    workshop.ledger.set(job_id, state=JobState.CANCELLED, finished_at=sa.func.now())
    with workshop.ledger.sessions.begin() as session:
        assert controls.retry(session, job_id, project_id=PROJECT) == 1
    workshop.store.put(first.part_key, b"torn")
    again = run(workshop, context, job_id)
    assert (again.state, again.rows_failed) == (ChunkState.DONE, 0)
    assert again.part_key != first.part_key
    assert workshop.verify(job_id).problems == ()
