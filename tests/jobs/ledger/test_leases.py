"""Promises P2 and P3 in the ledger: the fence decides who may write."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs import database
from jobs.decisions.faults import Blame, Diagnosis, RetryLimits
from jobs.errors import LeaseLost
from jobs.ledger import chunks, controls
from jobs.ledger.chunks import ChunkLease
from jobs.states import ChunkState, JobState
from jobs.tables import Chunk, ResultRow
from tests.jobs.ledger.building import LEASE, PROJECT, RUN_OUT, Ledger, part_of, result_rows

LIMITS = RetryLimits(tries=5, outage=timedelta(days=1))
FULL = Diagnosis(Blame.TRANSIENT, "storage_unavailable", "disk full")
LATE = Diagnosis(Blame.LEASE, "lease_lost", "taken over")

CLAIMERS = 6


def test_stale_before_load_a_done_chunk_is_not_to_be_had(ledger: Ledger) -> None:
    chunk_id = ledger.only_chunk(ledger.running(10))
    ledger.commit(ledger.claimed(chunk_id))
    assert ledger.claim(chunk_id, owner="late") is None


def test_stale_before_apply_a_late_commit_changes_nothing(ledger: Ledger) -> None:
    job_id = ledger.running(3, output={"postgres": True})
    late = ledger.claimed(ledger.only_chunk(job_id), owner="late", duration=RUN_OUT)
    ledger.rescue()
    with pytest.raises(LeaseLost, match=f"fence {late.fence} is void"):
        ledger.commit(late, results=result_rows(late))
    chunk = ledger.chunk(late.chunk_id)
    assert (chunk.state, chunk.part_key, chunk.tokens) == (ChunkState.PENDING, None, None)
    assert _result_rows(ledger, job_id) == []


def test_expired_and_claimed_by_another_only_the_other_commits(ledger: Ledger) -> None:
    job_id = ledger.running(3, output={"postgres": True})
    first = ledger.claimed(ledger.only_chunk(job_id), owner="first", duration=RUN_OUT)
    ledger.rescue()
    second = ledger.claimed(first.chunk_id, owner="second")
    with pytest.raises(LeaseLost):
        ledger.commit(first, results=result_rows(first, label="late"))
    part = ledger.commit(second, results=result_rows(second))
    with pytest.raises(LeaseLost):
        ledger.commit(first, results=result_rows(first, label="late"))
    assert ledger.chunk(first.chunk_id).part_key == part.key
    assert _result_rows(ledger, job_id) == ["good"] * 3


def test_of_many_that_claim_at_once_exactly_one_wins(ledger: Ledger) -> None:
    chunk_id = ledger.only_chunk(ledger.running(10))
    start = threading.Barrier(CLAIMERS)

    def claim(number: int) -> object:
        start.wait()
        return ledger.claim(chunk_id, owner=f"w{number}")

    with ThreadPoolExecutor(CLAIMERS) as pool:
        leases = [lease for lease in pool.map(claim, range(CLAIMERS)) if lease is not None]
    assert len(leases) == 1
    assert ledger.chunk(chunk_id).fence == 1


def test_a_claim_waits_for_one_under_way_and_then_comes_too_late(ledger: Ledger) -> None:
    chunk_id = ledger.only_chunk(ledger.running(10))
    with ThreadPoolExecutor(1) as pool, ledger.sessions.begin() as session:
        assert chunks.claim(session, chunk_id, owner="first", duration=LEASE)
        second = pool.submit(ledger.claim, chunk_id, owner="second")
        session.commit()
        assert second.result(10) is None


def test_a_claim_whose_answer_was_lost_is_had_by_claiming_again(ledger: Ledger) -> None:
    chunk_id = ledger.only_chunk(ledger.running(10))
    lost = ledger.claimed(chunk_id)
    again = ledger.claimed(chunk_id)
    assert again.fence == lost.fence + 1
    with pytest.raises(LeaseLost):
        ledger.commit(lost)
    ledger.commit(again)


def test_a_commit_whose_answer_was_lost_may_be_repeated(ledger: Ledger) -> None:
    job_id = ledger.running(10)
    lease = ledger.claimed(ledger.only_chunk(job_id))
    ledger.commit(lease)
    ledger.commit(lease)
    chunk = ledger.chunk(lease.chunk_id)
    assert (chunk.tokens, chunk.seconds) == (10, 0.5)


def test_a_commit_may_be_repeated_even_when_the_job_has_moved_on(ledger: Ledger) -> None:
    job_id = ledger.running(10)
    lease = ledger.claimed(ledger.only_chunk(job_id))
    ledger.commit(lease)
    ledger.set(job_id, state=JobState.FINALIZING)
    ledger.finish(job_id)
    ledger.commit(lease)
    assert ledger.job(job_id).state is JobState.SUCCEEDED


def test_a_lease_that_ran_out_but_was_not_taken_is_still_ours(ledger: Ledger) -> None:
    job_id = ledger.running(10)
    lease = ledger.claimed(ledger.only_chunk(job_id), duration=RUN_OUT)
    with ledger.sessions.begin() as session:
        assert chunks.renew(session, lease, duration=LEASE) is JobState.RUNNING
    assert ledger.rescue() == 0
    ledger.commit(lease)


def test_a_lease_that_was_taken_cannot_be_renewed_or_released(ledger: Ledger) -> None:
    chunk_id = ledger.only_chunk(ledger.running(10))
    lease = ledger.claimed(chunk_id, duration=RUN_OUT)
    ledger.rescue()
    ledger.claimed(chunk_id, owner="second")
    with ledger.sessions.begin() as session:
        assert chunks.renew(session, lease, duration=LEASE) is None
        assert not chunks.release(session, lease)
        chunks.release_after_fault(session, lease, FULL, limits=LIMITS)
    assert ledger.chunk(chunk_id).owner == "second"


def test_the_crash_of_a_worker_that_comes_back_is_taken_back_once(ledger: Ledger) -> None:
    lease = ledger.claimed(ledger.only_chunk(ledger.running(10)), owner="first", duration=RUN_OUT)
    ledger.rescue()
    assert ledger.chunk(lease.chunk_id).crashes == 1
    come_back(ledger, lease, times=2)
    chunk = ledger.chunk(lease.chunk_id)
    assert (chunk.crashes, chunk.last_error) == (0, "its worker first went silent and came back")


def test_no_one_takes_back_the_crash_of_another(ledger: Ledger) -> None:
    first = ledger.claimed(ledger.only_chunk(ledger.running(1)), owner="first", duration=RUN_OUT)
    ledger.rescue()
    come_back(ledger, first)
    second = ledger.claimed(first.chunk_id, owner="second", duration=RUN_OUT)
    ledger.rescue()
    come_back(ledger, first)
    assert ledger.chunk(first.chunk_id).crashes == 1
    come_back(ledger, second)
    assert ledger.chunk(first.chunk_id).crashes == 0


def test_a_chunk_that_was_split_stays_so_when_its_worker_comes_back(ledger: Ledger) -> None:
    job_id = ledger.running(10)
    first = ledger.claimed(ledger.only_chunk(job_id), owner="first")
    ledger.crash(first, owner="first")
    second = ledger.claimed(first.chunk_id, owner="second", duration=RUN_OUT)
    ledger.rescue()
    come_back(ledger, second)
    assert ledger.chunk(first.chunk_id).state is ChunkState.SPLIT
    assert [chunk.crashes for chunk in ledger.live(job_id)] == [1, 1]


def come_back(ledger: Ledger, lease: ChunkLease, *, times: int = 1) -> None:
    """As a worker does that finds its lease lost, twice if an answer is lost."""
    for _ in range(times):
        with ledger.sessions.begin() as session:
            assert not chunks.release_after_fault(session, lease, LATE, limits=LIMITS)


@pytest.mark.parametrize("state", [JobState.PAUSED, JobState.CANCELLING])
def test_a_chunk_that_was_begun_may_end_while_its_job_is(ledger: Ledger, state: JobState) -> None:
    job_id = ledger.running(10)
    lease = ledger.claimed(ledger.only_chunk(job_id))
    ledger.set(job_id, state=state)
    ledger.commit(lease)
    assert ledger.chunk(lease.chunk_id).state is ChunkState.DONE


@pytest.mark.parametrize("state", [JobState.CANCELLED, JobState.FAILED, JobState.EXPIRED])
def test_a_job_that_has_ended_takes_no_part(ledger: Ledger, state: JobState) -> None:
    job_id = ledger.running(10)
    lease = ledger.claimed(ledger.only_chunk(job_id))
    error = "x" if state is JobState.FAILED else None
    ledger.set(job_id, state=state, finished_at=sa.func.now(), error_code=error)
    with pytest.raises(LeaseLost, match=f"the job is {state}"):
        ledger.commit(lease)
    assert ledger.chunk(lease.chunk_id).part_key is None


@pytest.mark.parametrize("state", [JobState.PAUSED, JobState.CANCELLING, JobState.FINALIZING])
def test_nothing_new_is_claimed_while_a_job_is(ledger: Ledger, state: JobState) -> None:
    job_id = ledger.running(10)
    ledger.set(job_id, state=state)
    assert ledger.claim(ledger.only_chunk(job_id)) is None


def test_a_chunk_given_back_counts_no_crash_and_is_to_be_had_at_once(ledger: Ledger) -> None:
    chunk_id = ledger.only_chunk(ledger.running(10))
    lease = ledger.claimed(chunk_id)
    with ledger.sessions.begin() as session:
        assert chunks.release(session, lease)
    chunk = ledger.chunk(chunk_id)
    assert (chunk.crashes, chunk.failures, chunk.not_before) == (0, 0, None)
    assert ledger.claim(chunk_id) is not None


def test_a_chunk_given_back_with_an_error_waits_longer_each_time_up_to_a_minute(
    ledger: Ledger,
) -> None:
    chunk_id = ledger.only_chunk(ledger.running(10))
    waits = []
    for _ in range(9):
        lease = ledger.claimed(chunk_id)
        with ledger.sessions.begin() as session:
            chunks.release_after_fault(session, lease, FULL, limits=LIMITS)
            now = session.scalar(sa.select(sa.func.now()))
        chunk = ledger.chunk(chunk_id)
        assert now is not None
        assert chunk.not_before is not None
        waits.append((chunk.not_before - now).total_seconds())
        assert ledger.claim(chunk_id) is None
        _forget_delay(ledger, chunk_id)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert (chunk.crashes, chunk.engine_faults, chunk.last_error) == (0, 0, "disk full")
    assert ledger.job(chunk.job_id).state is JobState.RUNNING


def test_an_outage_that_lasts_longer_than_its_bound_fails_the_job_with_its_code(
    ledger: Ledger,
) -> None:
    job_id = ledger.running(10)
    lease = ledger.claimed(ledger.only_chunk(job_id))
    with ledger.sessions.begin() as session:
        session.execute(
            sa.update(Chunk)
            .where(Chunk.id == lease.chunk_id)
            .values(failures=100, failing_since=sa.func.now() - LIMITS.outage)
        )
        assert chunks.release_after_fault(session, lease, FULL, limits=LIMITS)
    job = ledger.job(job_id)
    assert (job.state, job.error_code) == (JobState.FAILED, "storage_unavailable")
    assert ledger.chunk(lease.chunk_id).state is ChunkState.PENDING


def test_the_engine_may_raise_so_often_on_one_chunk_and_no_crash_is_counted(
    ledger: Ledger,
) -> None:
    job_id = ledger.running(10)
    chunk_id = ledger.only_chunk(job_id)
    bug = Diagnosis(Blame.ENGINE, "unexpected_error", "TypeError: a bug")
    for tries in range(1, LIMITS.tries + 1):
        with ledger.sessions.begin() as session:
            lease = chunks.claim(session, chunk_id, owner="w", duration=LEASE)
            assert lease is not None
            ended = chunks.release_after_fault(session, lease, bug, limits=LIMITS)
        assert ended == (tries == LIMITS.tries)
        _forget_delay(ledger, chunk_id)
    job, chunk = ledger.job(job_id), ledger.chunk(chunk_id)
    assert (job.error_code, chunk.crashes) == ("unexpected_error", 0)
    assert "TypeError: a bug (tried 5 times" in (job.error_message or "")


def test_a_retry_forgets_how_often_a_chunk_failed(ledger: Ledger) -> None:
    job_id = ledger.running(10)
    lease = ledger.claimed(ledger.only_chunk(job_id))
    with ledger.sessions.begin() as session:
        refused = Diagnosis(Blame.JOB, "model_changed", "another model")
        assert chunks.release_after_fault(session, lease, refused, limits=LIMITS)
        controls.retry(session, job_id, project_id=PROJECT)
    chunk = ledger.chunk(lease.chunk_id)
    assert (chunk.failures, chunk.failing_since, chunk.not_before) == (0, None, None)


def test_result_rows_of_an_earlier_try_are_replaced(ledger: Ledger) -> None:
    job_id = ledger.running(3, output={"postgres": True})
    ledger.commit(
        first := ledger.claimed(ledger.only_chunk(job_id)),
        failed=1,
        results=result_rows(first, label="old"),
    )
    ledger.set(job_id, state=JobState.FINALIZING)
    ledger.finish(job_id)
    with ledger.sessions.begin() as session:
        controls.retry(session, job_id, project_id=PROJECT)
    again = ledger.claimed(first.chunk_id)
    ledger.commit(again, results=result_rows(again, label="new"))
    assert _result_rows(ledger, job_id) == ["new"] * 3


@pytest.mark.parametrize("fault", ["pg_terminate_backend(%s, 5000)", "pg_cancel_backend(%s)"])
def test_a_copy_that_is_broken_off_is_tried_again(ledger: Ledger, fault: str) -> None:
    job_id = ledger.running(3, output={"postgres": True})
    lease = ledger.claimed(ledger.only_chunk(job_id))
    tries = []

    def commit(session: Session) -> None:
        tries.append(session.scalar(sa.select(sa.func.pg_backend_pid())))
        chunks.commit(session, lease, part_of(lease), results=rows())

    def rows() -> Iterator[tuple[Any, ...]]:
        yield from result_rows(lease)
        if len(tries) == 1:
            with psycopg.connect(ledger.url, autocommit=True) as connection:
                connection.execute(f"SELECT {fault}".encode(), (tries[0],))

    database.patiently(ledger.sessions, commit, seconds=10)
    assert len(tries) == 2
    assert _result_rows(ledger, job_id) == ["good"] * 3


def _result_rows(ledger: Ledger, job_id: str) -> list[str | None]:
    query = sa.select(ResultRow.label).where(ResultRow.job_id == job_id).order_by(ResultRow.row)
    with ledger.sessions.begin() as session:
        return list(session.scalars(query))


def _forget_delay(ledger: Ledger, chunk_id: int) -> None:
    with ledger.sessions.begin() as session:
        session.execute(sa.update(Chunk).where(Chunk.id == chunk_id).values(not_before=None))
