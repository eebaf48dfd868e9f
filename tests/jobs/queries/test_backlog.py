"""What waits in the ledger by queue, and what is held at the moment."""

from __future__ import annotations

import pytest

from jobs.ledger import chunks, dispatch_marks
from jobs.queries import backlog, occupancy
from jobs.states import JobStep
from tests.jobs.ledger.building import LEASE, Ledger

WORKERS = ("cpu-7-ab@here", "gpu.cuda0_1-7-ab@node7.example.org")
"""As earlier versions and as this one name them."""


def test_pending_chunks_wait_and_some_of_them_are_sent(ledger: Ledger) -> None:
    first, second = ledger.running(5, 5, 5, pool="blue"), ledger.running(5, pool="blue")
    with ledger.sessions.begin() as session:
        dispatch_marks.mark_chunks(session, {first: 2})
    with ledger.sessions.begin() as session:
        found = backlog.of_pools(session)["blue"]
    assert (found.jobs, found.waiting, found.sent) == (2, 4, 2)
    assert found.oldest_sent_at is not None
    assert found.oldest_job_at == ledger.job(first).created_at
    assert ledger.job(second).created_at > found.oldest_job_at


def test_a_job_that_is_not_planned_waits_for_planners(ledger: Ledger) -> None:
    with ledger.sessions.begin() as session:
        before = backlog.of_planners(session)
    job_id = ledger.accept()
    with ledger.sessions.begin() as session:
        dispatch_marks.mark_step(session, job_id, step=JobStep.PLAN)
        found = backlog.of_planners(session)
    assert (found.waiting, found.sent) == (before.waiting + 1, before.sent + 1)


@pytest.mark.parametrize("worker", WORKERS)
def test_a_leased_chunk_is_with_its_worker(ledger: Ledger, worker: str) -> None:
    job_id = ledger.running(3, 4, model="/models/news")
    first, second = ledger.live(job_id)
    with ledger.sessions.begin() as session:
        chunks.claim(session, second.id, owner=f"{worker}:12", duration=LEASE)
    with ledger.sessions.begin() as session:
        (held,) = occupancy.chunks(session, job_id=job_id)
    assert (held.worker, held.number, held.first_row, held.rows) == (worker, 2, 3, 4)
    assert (held.subject.job_id, held.subject.model) == (job_id, "/models/news")
    assert first.number == 1


def test_chunks_are_numbered_over_shards(ledger: Ledger) -> None:
    job_id = ledger.accept()
    ledger.plan(job_id, (2, 2), (3,), (1, 4))
    assert [chunk.number for chunk in ledger.live(job_id)] == [1, 2, 3, 4, 5]
    assert ledger.job(job_id).chunks_planned == 5


def test_a_message_says_which_chunk_of_which_job_it_is_about(ledger: Ledger) -> None:
    job_id = ledger.accept(model="/models/news")
    ledger.plan(job_id, (1_000, 1_000), complete=False)
    with ledger.sessions.begin() as session:
        (sent,) = dispatch_marks.mark_chunks(session, {job_id: 1})[job_id]
    assert sent.words == f"chunk 1 · classify · /models/news · rows 0 to 999 · {job_id}"


def test_the_number_of_all_chunks_is_told_once_the_job_is_planned(ledger: Ledger) -> None:
    job_id = ledger.running(1_000, 1, model="/models/news")
    with ledger.sessions.begin() as session:
        sent = dispatch_marks.mark_chunks(session, {job_id: 2})[job_id]
    assert [each.words for each in sent] == [
        f"chunk 1 of 2 · classify · /models/news · rows 0 to 999 · {job_id}",
        f"chunk 2 of 2 · classify · /models/news · row 1,000 · {job_id}",
    ]


def test_a_job_of_a_version_before_numbers_has_none(ledger: Ledger) -> None:
    job_id = ledger.accept()
    ledger.set(job_id, chunks_planned=None)
    ledger.plan(job_id, (2, 2))
    assert [chunk.number for chunk in ledger.live(job_id)] == [None, None]
    with ledger.sessions.begin() as session:
        (sent,) = dispatch_marks.mark_chunks(session, {job_id: 1})[job_id]
    assert sent.words.startswith("chunk · classify")
