"""A job of any kind that is retried, cancelled or paused keeps the answers that it has."""

from __future__ import annotations

import pytest

from jobs.ledger import controls
from jobs.queries import chunks
from jobs.queries.jobs import JobView
from jobs.states import JobState
from tests.support.installation import PROJECT, Installation, jsonl, sentences
from tests.support.waiting import wait_until
from tests.workers.bulk.kinds.bulk_kind import (
    BAD,
    CHUNK_ROWS,
    BulkKind,
    Record,
    assert_answers,
    ended,
    succeeded,
)

TEXTS = list(sentences(150))
PART_ROWS = 3


def begun(installation: Installation, kind: BulkKind) -> str:
    """A job of 50 chunks, five of which are done."""
    job_id = installation.submit(jsonl(TEXTS), **kind.fields(chunk_rows=PART_ROWS))
    installation.wait_for_chunks(job_id, 5)
    return job_id


def test_a_retry_keeps_the_answers_that_a_job_has(
    installation: Installation, kind: BulkKind
) -> None:
    job_id = succeeded(installation, kind)
    before = installation.results(job_id)
    with installation.sessions.begin() as session:
        retried = controls.retry(session, job_id, project_id=PROJECT)
    assert retried >= len({row // CHUNK_ROWS for row in BAD})
    assert ended(installation, job_id) == before
    assert installation.verify(job_id).problems == ()


@pytest.fixture(scope="module")
def cancelled(installation: Installation, kind: BulkKind) -> str:
    """A job that was cancelled while it ran."""
    job_id = begun(installation, kind)
    with installation.sessions.begin() as session:
        controls.cancel(session, job_id, project_id=PROJECT)
    ended(installation, job_id, JobState.CANCELLED)
    return job_id


def test_a_cancelled_job_keeps_the_rows_that_were_done(
    installation: Installation, cancelled: str
) -> None:
    report = installation.verify(cancelled)
    assert report.problems == ()
    assert 5 * PART_ROWS <= report.rows_output < len(TEXTS)
    assert report.rows_output + report.missing == len(TEXTS)


def test_every_part_of_a_cancelled_job_is_whole(installation: Installation, cancelled: str) -> None:
    with installation.sessions.begin() as session:
        sizes = {part.rows for part in chunks.done_parts(session, cancelled)}
    assert sizes == {PART_ROWS}


def test_the_answers_of_a_cancelled_job_are_right(
    installation: Installation, kind: BulkKind, cancelled: str
) -> None:
    assert_answers(installation.results(cancelled)[:9], kind, dict(enumerate(TEXTS)))


@pytest.fixture(scope="module")
def resumed(installation: Installation, kind: BulkKind) -> tuple[JobView, list[Record]]:
    """A job while it was paused, and its results after it was resumed and has succeeded."""
    job_id = begun(installation, kind)
    with installation.sessions.begin() as session:
        controls.pause(session, job_id, project_id=PROJECT)
    wait_until(lambda: not installation.leased(job_id), seconds=30)
    paused = installation.job(job_id)
    with installation.sessions.begin() as session:
        controls.resume(session, job_id, project_id=PROJECT)
    results = ended(installation, job_id)
    assert installation.verify(job_id).problems == ()
    return paused, results


def test_a_paused_job_leaves_chunks_undone(resumed: tuple[JobView, list[Record]]) -> None:
    paused, _ = resumed
    assert paused.job.state is JobState.PAUSED
    assert paused.counts.done < len(TEXTS) // PART_ROWS


def test_a_resumed_job_has_every_row_once(resumed: tuple[JobView, list[Record]]) -> None:
    _, results = resumed
    assert [record["row"] for record in results] == list(range(len(TEXTS)))


def test_the_answers_of_a_resumed_job_are_right(
    kind: BulkKind, resumed: tuple[JobView, list[Record]]
) -> None:
    _, results = resumed
    assert_answers(results, kind, dict(enumerate(TEXTS)))
