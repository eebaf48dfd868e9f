"""A job with failed rows succeeds unless there are more of them than its limit."""

from __future__ import annotations

import pytest

from jobs.queries import jobs as job_queries
from jobs.states import JobState
from tests.jobs.ledger.building import PROJECT
from tests.workers.bulk.conftest import Workshop
from workers.bulk import finalizer
from workers.context import Context
from workers.outcomes import TaskState


def finalized(workshop: Workshop, context: Context, *, failed: int, **fields: object) -> str:
    """A job of two chunks of four rows each, of which the first ``failed`` fail."""
    job_id = workshop.job(4, 4, **fields)
    for chunk in workshop.ledger.live(job_id):
        bad = max(0, min(4, failed - chunk.first_row))
        workshop.commit(workshop.ledger.claimed(chunk.id), failed=bad)
    workshop.ledger.set(job_id, state=JobState.FINALIZING)
    assert finalizer.finalize(job_id, context=context).state in (TaskState.DONE, TaskState.FAILED)
    return job_id


@pytest.mark.parametrize(
    ("failed", "fields", "state"),
    [
        (7, {}, JobState.SUCCEEDED),
        (8, {}, JobState.FAILED),
        (8, {"max_failed": "100%"}, JobState.SUCCEEDED),
        (8, {"max_failed": 8}, JobState.SUCCEEDED),
        (2, {"max_failed": "25%"}, JobState.SUCCEEDED),
        (3, {"max_failed": "25%"}, JobState.FAILED),
        (1, {"max_failed": 0}, JobState.FAILED),
    ],
)
def test_a_job_succeeds_unless_more_rows_failed_than_its_limit(
    workshop: Workshop,
    context: Context,
    failed: int,
    fields: dict[str, object],
    state: JobState,
) -> None:
    job_id = finalized(workshop, context, failed=failed, **fields)
    job = workshop.ledger.job(job_id)
    assert job.state is state
    assert (job.output is None) == (state is JobState.FAILED)
    assert job.error_code == ("too_many_failed_rows" if state is JobState.FAILED else None)
    with workshop.ledger.sessions.begin() as session:
        view = job_queries.get(session, job_id, project_id=PROJECT)
    assert (view.counts.rows_done, view.counts.rows_failed) == (8, failed), "parts are kept"


def test_a_job_that_is_being_cancelled_is_cancelled_whatever_failed(
    workshop: Workshop, context: Context
) -> None:
    job_id = workshop.job(4, 4)
    workshop.commit(workshop.ledger.claimed(workshop.ledger.live(job_id)[0].id), failed=4)
    workshop.ledger.set(job_id, state=JobState.CANCELLING)
    assert finalizer.finalize(job_id, context=context).done
    assert workshop.ledger.job(job_id).state is JobState.CANCELLED
