"""What users may do to a job, and to whose."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from jobs.errors import Conflict, NotFound
from jobs.ledger import controls, transitions
from jobs.queries import jobs as job_queries
from jobs.states import ChunkState, JobState
from tests.jobs.ledger.building import OTHER, PROJECT, Ledger

Operation = Callable[..., object]
OPERATIONS = [controls.cancel, controls.pause, controls.resume, controls.retry, job_queries.get]


def do(ledger: Ledger, operation: Operation, job_id: str) -> object:
    with ledger.sessions.begin() as session:
        return operation(session, job_id, project_id=PROJECT)


def succeeded(ledger: Ledger, *sizes: int, failed_in_first: int = 0, **fields: object) -> str:
    job_id = ledger.running(*sizes, **fields)
    ledger.commit(ledger.claimed(ledger.live(job_id)[0].id), failed=failed_in_first)
    ledger.commit_all(job_id)
    ledger.set(job_id, state=JobState.FINALIZING)
    ledger.finish(job_id)
    return job_id


@pytest.mark.parametrize("operation", OPERATIONS)
def test_another_projects_job_is_as_if_it_did_not_exist(
    ledger: Ledger, operation: Operation
) -> None:
    job_id = ledger.accept(project=OTHER)
    with pytest.raises(NotFound, match=f"no job '{job_id}' in this project"):
        do(ledger, operation, job_id)
    assert ledger.job(job_id).state is JobState.QUEUED


def test_pause_and_cancel_are_harmless_when_repeated(ledger: Ledger) -> None:
    job_id = ledger.running(10)
    for operation in (controls.pause, controls.pause, controls.cancel, controls.cancel):
        do(ledger, operation, job_id)
    assert ledger.job(job_id).state is JobState.CANCELLING


@pytest.mark.parametrize("operation", [controls.cancel, controls.pause, controls.resume])
def test_a_job_that_has_ended_is_in_conflict_with(ledger: Ledger, operation: Operation) -> None:
    job_id = succeeded(ledger, 5)
    with pytest.raises(Conflict):
        do(ledger, operation, job_id)


def test_a_retry_opens_only_the_chunks_with_failed_rows(ledger: Ledger) -> None:
    job_id = succeeded(ledger, 5, 5, failed_in_first=2)
    before = ledger.live(job_id)
    assert do(ledger, controls.retry, job_id) == 1
    opened, kept = ledger.live(job_id)
    assert (opened.state, opened.part_key) == (ChunkState.PENDING, None)
    assert opened.retried_part == before[0].part_key
    assert (kept.state, kept.part_key) == (ChunkState.DONE, before[1].part_key)
    assert ledger.claimed(opened.id).retried_part == before[0].part_key


def test_a_retry_adds_to_the_usage_and_replaces_the_counts(ledger: Ledger) -> None:
    job_id = succeeded(ledger, 5, failed_in_first=2)
    do(ledger, controls.retry, job_id)
    ledger.commit(ledger.claimed(ledger.only_chunk(job_id)))
    view = do(ledger, job_queries.get, job_id)
    assert isinstance(view, job_queries.JobView)
    assert (view.counts.rows_done, view.counts.rows_failed, view.counts.tokens) == (5, 0, 10)
    assert view.histogram == {"good": 5}


def test_a_job_without_failed_rows_has_nothing_to_retry(ledger: Ledger) -> None:
    job_id = succeeded(ledger, 5)
    with pytest.raises(Conflict, match="no failed rows"):
        do(ledger, controls.retry, job_id)
    assert ledger.job(job_id).state is JobState.SUCCEEDED


def test_a_retried_job_has_nothing_left_of_its_former_end(ledger: Ledger) -> None:
    job_id = ledger.running(5)
    ledger.set(job_id, step_error="disk full", step_dispatched_at=sa.func.now(), step_crashes=3)
    with ledger.sessions.begin() as session:
        transitions.fail(session, job_id, code="model_changed", message="it changed")
    do(ledger, controls.retry, job_id)
    job = ledger.job(job_id)
    assert (job.state, job.finished_at, job.output) == (JobState.RUNNING, None, None)
    assert (job.error_code, job.error_message, job.step_error) == (None, None, None)
    assert (job.step_dispatched_at, job.step_crashes) == (None, 0)


def test_a_retry_after_the_deadline_has_as_long_again(ledger: Ledger) -> None:
    job_id = succeeded(ledger, 5, failed_in_first=1, deadline_seconds=3600)
    ledger.set(job_id, expires_at=sa.func.now() - timedelta(days=1))
    do(ledger, controls.retry, job_id)
    with ledger.sessions.begin() as session:
        assert controls.expire(session) == 0
    assert ledger.job(job_id).state is JobState.RUNNING


@pytest.mark.parametrize(
    ("plan", "state"),
    [
        (lambda *_: None, JobState.QUEUED),
        (lambda ledger, job_id: ledger.plan(job_id, (5,), complete=False), JobState.PLANNING),
        (lambda ledger, job_id: ledger.plan(job_id, (5,)), JobState.RUNNING),
    ],
)
def test_a_paused_or_cancelled_job_goes_on_where_it_was(
    ledger: Ledger, plan: Callable[[Ledger, str], object], state: JobState
) -> None:
    job_id = ledger.accept()
    plan(ledger, job_id)
    do(ledger, controls.pause, job_id)
    do(ledger, controls.resume, job_id)
    assert ledger.job(job_id).state is state
    do(ledger, controls.cancel, job_id)
    ledger.finish(job_id)
    do(ledger, controls.retry, job_id)
    job = ledger.job(job_id)
    assert job.state in (state, JobState.PLANNING)  # finalizing has begun even a queued one
    assert job.finished_at is None


def test_a_job_past_its_deadline_expires_and_the_others_do_not(ledger: Ledger) -> None:
    late = ledger.accept(deadline_seconds=1)
    others = [ledger.accept(deadline_seconds=3600), ledger.accept(), succeeded(ledger, 5)]
    ledger.set(late, expires_at=sa.func.now() - timedelta(seconds=1))
    with ledger.sessions.begin() as session:
        assert controls.expire(session) == 1
    assert ledger.job(late).state is JobState.EXPIRED
    assert all(ledger.job(other).state is not JobState.EXPIRED for other in others)


@pytest.mark.parametrize(
    "values",
    [
        {"state": "dreaming"},
        {"state": JobState.SUCCEEDED},
        {"finished_at": sa.func.now()},
        {"error_code": "x"},
        {"state": JobState.FAILED, "finished_at": sa.func.now()},
        {"step_owner": "p"},
        {"planned_at": None},
    ],
)
def test_the_schema_refuses_a_job_that_contradicts_itself(
    ledger: Ledger, values: dict[str, object]
) -> None:
    job_id = ledger.running(5)
    with pytest.raises(sa.exc.IntegrityError, match="violates check constraint"):
        _write(ledger, "jobs", job_id, values)


@pytest.mark.parametrize(
    "values",
    [
        {"state": "dreaming"},
        {"state": ChunkState.LEASED},
        {"state": ChunkState.LEASED, "owner": "w"},
        {"state": ChunkState.DONE},
        {"part_key": "k", "rows_failed": 0},
        {"rows": 0},
        {"owner": "w", "lease_expires_at": sa.func.now()},
    ],
)
def test_the_schema_refuses_a_chunk_that_contradicts_itself(
    ledger: Ledger, values: dict[str, object]
) -> None:
    chunk_id = ledger.only_chunk(ledger.running(5))
    with pytest.raises(sa.exc.IntegrityError, match="violates check constraint"):
        _write(ledger, "chunks", chunk_id, values)


def test_the_schema_refuses_two_live_chunks_that_begin_at_the_same_row(ledger: Ledger) -> None:
    first, second = ledger.live(ledger.running(5, 5))
    with pytest.raises(sa.exc.IntegrityError, match="uq_chunks_job_id_first_row"):
        _write(ledger, "chunks", second.id, {"first_row": first.first_row})


def _write(ledger: Ledger, table: str, row_id: object, values: dict[str, object]) -> None:
    """Past the enum of the tables, as any other program would."""
    columns: list[Any] = [sa.column("id"), *(sa.column(name) for name in values)]
    raw = sa.table(table, *columns)
    plain = {
        name: value.value if isinstance(value, JobState | ChunkState) else value
        for name, value in values.items()
    }
    with ledger.sessions.begin() as session:
        session.execute(sa.update(raw).where(raw.c.id == row_id).values(plain))
