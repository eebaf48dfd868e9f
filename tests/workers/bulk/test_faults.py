"""How planning and finalizing handle each kind of fault: fail, wait, or end at a limit."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from jobs import objects
from jobs.ledger import controls
from jobs.queries import jobs as job_queries
from jobs.states import JobState
from jobs.tables import Job
from tests.jobs.ledger.building import PROJECT
from tests.support.seaweed import BUCKET, S3
from tests.support.tiny_models import tiny_classifier
from tests.workers.bulk.conftest import Workshop, jsonl
from workers.bulk import finalizer, planner
from workers.context import Context

CORPUS = jsonl({"text": f"text {row}"} for row in range(3))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_classifier(tmp_path_factory.mktemp("model") / "model"))


def outcome(workshop: Workshop, job_id: str) -> tuple[JobState, str | None, str]:
    job = workshop.ledger.job(job_id)
    return job.state, job.error_code, job.error_message or ""


def planned(workshop: Workshop, context: Context, **fields: Any) -> tuple[str, str | None, str]:
    job_id = workshop.ledger.accept(**fields)
    assert not planner.plan(job_id, context=context).done
    return outcome(workshop, job_id)


def due(workshop: Workshop, job_id: str) -> None:
    workshop.ledger.set(job_id, step_not_before=None)


def test_a_model_path_of_5000_characters_fails_the_job_at_once(
    workshop: Workshop, context: Context
) -> None:
    file_id = workshop.upload(CORPUS)
    state, code, message = planned(
        workshop, context, corpus={"file": file_id}, model="/" + "m" * 5_000
    )
    assert (state, code) == (JobState.FAILED, "path_unusable")
    assert "File name too long" in message
    assert "mmm" not in message


def test_a_corpus_path_of_5000_characters_fails_the_job_at_once(
    workshop: Workshop, context: Context, model: str
) -> None:
    uri = "file:///" + "c" * 5_000 + ".jsonl"
    wide = context.settings.model_copy(update={"allowed_inputs": ["file:///"]})
    allowing = Context(wide, context.sessions, context.store)
    state, code, message = planned(workshop, allowing, corpus={"uri": uri}, model=model)
    assert (state, code) == (JobState.FAILED, "corpus_unreadable")
    assert "File name too long" in message


def test_a_deleted_upload_fails_the_job_at_once_with_the_reason(
    workshop: Workshop, context: Context, model: str
) -> None:
    file_id = workshop.upload(CORPUS)
    workshop.store.delete(f"files/{file_id}")
    state, code, message = planned(workshop, context, corpus={"file": file_id}, model=model)
    assert (state, code) == (JobState.FAILED, "corpus_unreadable")
    assert "gone from the object store; upload it again" in message


def test_an_upload_deleted_in_s3_fails_the_job_at_once_with_the_reason(
    workshop: Workshop, context: Context, model: str, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    store = objects.connect(f"s3://{BUCKET}/deleted")
    file_id = workshop.upload(CORPUS)
    remote = Context(context.settings, context.sessions, store)
    state, code, message = planned(workshop, remote, corpus={"file": file_id}, model=model)
    assert (state, code) == (JobState.FAILED, "corpus_unreadable")
    assert "upload it again" in message


def test_a_store_that_fails_shows_why_at_once_and_is_tried_again_with_backoff(
    workshop: Workshop, context: Context, model: str
) -> None:
    job_id, shards = blocked(workshop, model=model)
    waits = []
    for tries in range(1, 4):
        assert not planner.plan(job_id, context=context).done
        job, view = workshop.ledger.job(job_id), look(workshop, job_id)
        assert (job.state, job.step_failures, job.step_crashes) == (JobState.PLANNING, tries, 0)
        assert "Not a directory" in (view.last_error or "")
        assert "the last try failed and will be repeated in" in (view.waiting_reason or "")
        assert str(Path(workshop.settings.object_store_url).parent) not in (view.last_error or "")
        assert workshop.ledger.claim_step(job_id) is None, "it is not due yet"
        waits.append(wait_of(job, view.now))
        due(workshop, job_id)
    assert waits == [1, 2, 4]
    shards.unlink()
    assert planner.plan(job_id, context=context).done
    job = workshop.ledger.job(job_id)
    assert (job.state, job.step_error, job.step_failing_since) == (JobState.RUNNING, None, None)


def test_an_outage_fails_the_job_after_its_limit_with_a_code(
    workshop: Workshop, context: Context, model: str
) -> None:
    job_id, _ = blocked(workshop, model=model)
    long_ago = sa.func.now() - timedelta(seconds=context.settings.outage_seconds + 1)
    workshop.ledger.set(job_id, step_failures=19, step_failing_since=long_ago)
    assert not planner.plan(job_id, context=context).done
    state, code, message = outcome(workshop, job_id)
    assert (state, code) == (JobState.FAILED, "storage_unavailable")
    assert "tried 20 times in 86,401 s" in message


def test_a_disconnect_from_postgres_is_no_fault_of_the_job(
    workshop: Workshop, context: Context, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = workshop.ledger.accept(corpus={"file": workshop.upload(CORPUS)}, model=model)

    def cut_off(*_: object, **__: object) -> None:
        with context.sessions.begin() as session:
            session.execute(sa.text("SELECT pg_terminate_backend(pg_backend_pid())"))

    monkeypatch.setattr(planner, "_inspect_model", cut_off)
    assert not planner.plan(job_id, context=context).done
    job = workshop.ledger.job(job_id)
    assert (job.state, job.step_failures, job.step_crashes) == (JobState.PLANNING, 1, 0)
    assert "OperationalError" in (job.step_error or "")


def test_a_damaged_part_fails_the_job_when_its_file_is_written(
    workshop: Workshop, context: Context
) -> None:
    job_id = workshop.job(4, 6, output={"format": "csv"})
    workshop.do(job_id)
    workshop.store.delete(workshop.part_keys(job_id)[1])
    workshop.ledger.set(job_id, state=JobState.FINALIZING)
    finalizer.finalize(job_id, context=context)
    state, code, message = outcome(workshop, job_id)
    assert (state, code) == (JobState.FAILED, "damaged")
    assert "`nightshift jobs retry` computes" in message
    with workshop.ledger.sessions.begin() as session:
        assert controls.retry(session, job_id, project_id=PROJECT) == 1


def test_a_cancelled_job_with_a_damaged_part_is_cancelled_without_its_file(
    workshop: Workshop, context: Context
) -> None:
    job_id = workshop.job(4, 6, output={"format": "csv"})
    workshop.do(job_id, 0)
    workshop.store.delete(workshop.part_keys(job_id)[0])
    with workshop.ledger.sessions.begin() as session:
        controls.cancel(session, job_id, project_id=PROJECT)
    finalizer.finalize(job_id, context=context)
    job = workshop.ledger.job(job_id)
    assert (job.state, job.output) == (JobState.CANCELLED, None)
    assert "part" in (job.step_error or "")


def blocked(workshop: Workshop, *, model: str) -> tuple[str, Path]:
    """A job whose shards cannot be written: a file lies where their folder should be."""
    job_id = workshop.ledger.accept(corpus={"file": workshop.upload(CORPUS)}, model=model)
    home = Path(workshop.settings.object_store_url.removeprefix("file://"))
    shards = home / "jobs" / job_id / "shards"
    shards.parent.mkdir(parents=True)
    shards.write_text("no folder")
    return job_id, shards


def look(workshop: Workshop, job_id: str) -> job_queries.JobView:
    with workshop.ledger.sessions.begin() as session:
        return job_queries.get(session, job_id, project_id=PROJECT)


def wait_of(job: Job, now: datetime) -> int:
    assert job.step_not_before is not None
    return round((job.step_not_before - now).total_seconds())
