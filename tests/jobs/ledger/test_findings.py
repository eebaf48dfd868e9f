"""A job of which too many rows failed ends, once, no matter who commits meanwhile."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from jobs.errors import LeaseLost
from jobs.ledger import controls, findings
from jobs.lookups import row_errors
from jobs.queries import failed_rows
from jobs.queries import jobs as job_queries
from jobs.queries.jobs import JobView
from jobs.states import ChunkState, JobState
from tests.jobs.ledger.building import PROJECT, Ledger


def end(ledger: Ledger, job_id: str) -> bool:
    with ledger.sessions.begin() as session:
        return findings.fail_if_too_many_rows_failed(session, job_id)


def view(ledger: Ledger, job_id: str) -> JobView:
    with ledger.sessions.begin() as session:
        return job_queries.get(session, job_id, project_id=PROJECT)


def commit(ledger: Ledger, job_id: str, place: int, *, failed: int, code: str = "bad_json") -> None:
    ledger.commit(ledger.claimed(ledger.live(job_id)[place].id), failed=failed, code=code)


def test_a_job_within_its_limit_goes_on_and_one_over_it_ends(ledger: Ledger) -> None:
    job_id = ledger.running(5, 5, 5, max_failed="20%")
    commit(ledger, job_id, 0, failed=3)
    assert not end(ledger, job_id)
    commit(ledger, job_id, 1, failed=1)
    assert end(ledger, job_id)
    job = ledger.job(job_id)
    assert (job.state, job.error_code) == (JobState.FAILED, "too_many_failed_rows")
    assert "4 rows failed, and max_failed allows 20%: 4 bad_json" in (job.error_message or "")
    assert "such as line 1: it is bad" in (job.error_message or "")


def test_a_job_ends_once_and_its_history_tells_why(ledger: Ledger) -> None:
    job_id = ledger.running(5, 5, max_failed=1)
    commit(ledger, job_id, 0, failed=2)
    assert [end(ledger, job_id), end(ledger, job_id)] == [True, False]
    told = [(each.type, each.data) for each in ledger.events(job_id)][-2:]
    assert [kind for kind, _ in told] == ["row_errors", "state"]
    assert told[0][1] == {
        "code": "bad_json",
        "rows": 2,
        "row": 0,
        "line": 1,
        "source": None,
        "id": "id 0",
        "message": "it is bad",
    }


def test_a_chunk_that_is_leased_when_its_job_ends_commits_nothing(ledger: Ledger) -> None:
    job_id = ledger.running(5, 5, max_failed=0)
    late = ledger.claimed(ledger.live(job_id)[1].id, owner="late")
    commit(ledger, job_id, 0, failed=1)
    assert end(ledger, job_id)
    with pytest.raises(LeaseLost):
        ledger.commit(late)
    done, other = ledger.live(job_id)
    assert (done.state, other.state) == (ChunkState.DONE, ChunkState.LEASED)
    assert view(ledger, job_id).counts.rows_done == 5, "what was done is kept"


def test_planning_ends_with_a_count_that_is_exceeded(ledger: Ledger) -> None:
    job_id = ledger.accept(max_failed=2)
    lease = ledger.plan(job_id, (5, 5), complete=False)
    commit(ledger, job_id, 0, failed=3)
    assert end(ledger, job_id)
    assert ledger.job(job_id).step_fence > lease.fence, "the planner has lost its step"


def test_first_rows_that_fail_alike_end_a_job_and_one_result_saves_it(ledger: Ledger) -> None:
    hopeless, fair, forgiven = (
        ledger.running(100, 100, 100),
        ledger.running(100, 100, 100),
        ledger.running(100, 100, 100, max_failed="100%"),
    )
    commit(ledger, hopeless, 0, failed=100, code="row_failed")
    commit(ledger, forgiven, 0, failed=100, code="row_failed")
    commit(ledger, fair, 0, failed=99, code="row_failed")
    commit(ledger, fair, 1, failed=100, code="row_failed")
    assert [end(ledger, each) for each in (hopeless, forgiven, fair)] == [True, False, False]
    message = ledger.job(hopeless).error_message or ""
    assert "the first 100 rows that were done all failed: 100 row_failed" in message


def test_a_retry_opens_a_job_that_ended_so_and_it_may_succeed(ledger: Ledger) -> None:
    job_id = ledger.running(5, 5)
    for place in (0, 1):
        commit(ledger, job_id, place, failed=5)
    assert end(ledger, job_id)
    with ledger.sessions.begin() as session:
        assert controls.retry(session, job_id, project_id=PROJECT) == 2
    assert not end(ledger, job_id), "what failed before does not count any more"
    assert view(ledger, job_id).row_errors == []
    ledger.commit_all(job_id)
    assert not end(ledger, job_id)
    assert ledger.job(job_id).state is JobState.RUNNING


def test_a_job_that_is_paused_or_being_cancelled_is_left_alone(ledger: Ledger) -> None:
    for operation in (controls.pause, controls.cancel):
        job_id = ledger.running(5, max_failed=0)
        commit(ledger, job_id, 0, failed=1)
        with ledger.sessions.begin() as session:
            operation(session, job_id, project_id=PROJECT)
        before = ledger.job(job_id).state
        assert not end(ledger, job_id)
        assert ledger.job(job_id).state is before


def test_many_that_commit_at_once_and_two_that_judge_end_a_job_once(ledger: Ledger) -> None:
    job_id = ledger.running(*[2] * 40, max_failed=9)
    leases = [ledger.claimed(each.id, owner=f"w{each.id}") for each in ledger.live(job_id)]

    def work(place: int) -> bool:
        try:
            ledger.commit(leases[place], failed=1)
        except LeaseLost:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        committed, verdicts = [], []
        for begin in range(0, 40, 4):
            committed += [pool.submit(work, place) for place in range(begin, begin + 4)]
            verdicts += [pool.submit(end, ledger, job_id) for _ in range(2)]
        went_through = sum(each.result() for each in committed)
        ended = [each.result() for each in verdicts]
    assert sum(ended) == 1
    job = view(ledger, job_id)
    assert job.job.state is JobState.FAILED
    assert job.counts.rows_failed == went_through >= 10
    assert f"{went_through} rows failed" in (job.job.error_message or ""), "no commit came after"


def test_errors_are_summed_by_code_with_the_first_row_of_each(ledger: Ledger) -> None:
    job_id = ledger.running(5, 5, 5, 5)
    commit(ledger, job_id, 3, failed=4, code="bad_json")
    commit(ledger, job_id, 2, failed=1, code="empty_text")
    commit(ledger, job_id, 1, failed=2, code="bad_json")
    with ledger.sessions.begin() as session:
        first, second = row_errors.by_code(session, job_id)
    assert (first.code, first.rows, first.row, first.line, first.id) == (
        "bad_json",
        6,
        5,
        6,
        "id 5",
    )
    assert (second.code, second.rows, second.row) == ("empty_text", 1, 10)


def test_only_jobs_under_way_with_a_failed_row_are_suspects(ledger: Ledger) -> None:
    clean, bad, ended = (ledger.running(5) for _ in range(3))
    commit(ledger, clean, 0, failed=0)
    commit(ledger, bad, 0, failed=1)
    commit(ledger, ended, 0, failed=5)
    assert end(ledger, ended)
    with ledger.sessions.begin() as session:
        found = set(failed_rows.suspects(session))
    assert bad in found
    assert not {clean, ended} & found
