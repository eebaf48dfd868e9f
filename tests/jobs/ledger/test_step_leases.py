"""The lease on a job's own steps, and what planners and finalizers may write under it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import sqlalchemy as sa

from jobs.decisions.faults import Blame, Diagnosis, RetryLimits
from jobs.errors import CorpusFailure, LeaseLost
from jobs.ledger import controls, finalization, plans, step_leases
from jobs.ledger.plans import PlannedShard, PlanProgress
from jobs.ledger.step_leases import MAX_CRASHES
from jobs.queries import dispatch
from jobs.states import JobState, JobStep
from tests.jobs.ledger.building import LEASE, PROJECT, RUN_OUT, Ledger

CLAIMERS = 6
LIMITS = RetryLimits(tries=5, outage=timedelta(days=1))


def test_of_many_planners_that_claim_at_once_exactly_one_wins(ledger: Ledger) -> None:
    job_id = ledger.accept()
    start = threading.Barrier(CLAIMERS)

    def claim(number: int) -> object:
        start.wait()
        return ledger.claim_step(job_id, owner=f"p{number}")

    with ThreadPoolExecutor(CLAIMERS) as pool:
        assert sum(lease is not None for lease in pool.map(claim, range(CLAIMERS))) == 1
    assert ledger.job(job_id).state is JobState.PLANNING


def test_a_step_that_is_held_is_not_to_be_had(ledger: Ledger) -> None:
    job_id = ledger.accept()
    assert ledger.claim_step(job_id, owner="first") is not None
    assert ledger.claim_step(job_id, owner="second") is None


def test_a_step_whose_claim_was_not_answered_is_had_by_claiming_again(ledger: Ledger) -> None:
    job_id = ledger.accept()
    lost = ledger.claim_step(job_id)
    again = ledger.claim_step(job_id)
    assert lost is not None
    assert again is not None
    assert again.fence == lost.fence + 1


def test_a_planner_that_went_silent_counts_one_death(ledger: Ledger) -> None:
    job_id = ledger.accept()
    ledger.claim_step(job_id, owner="first", duration=RUN_OUT)
    assert ledger.claim_step(job_id, owner="second") is not None
    assert ledger.job(job_id).step_crashes == 1


def test_five_deaths_in_planning_fail_the_job_and_say_so(ledger: Ledger) -> None:
    job_id = ledger.accept()
    claims = [ledger.claim_step(job_id, duration=RUN_OUT) for _ in range(MAX_CRASHES + 1)]
    assert [claim is not None for claim in claims] == [True] * MAX_CRASHES + [False]
    job = ledger.job(job_id)
    assert (job.state, job.error_code) == (JobState.FAILED, "plan_crashed")
    assert "died 5 times" in (job.error_message or "")


def test_deaths_while_cancelling_never_keep_a_job_from_being_cancelled(ledger: Ledger) -> None:
    job_id = ledger.running(10)
    with ledger.sessions.begin() as session:
        controls.cancel(session, job_id, project_id=PROJECT)
    for _ in range(MAX_CRASHES):
        assert ledger.claim_step(job_id, step=JobStep.FINALIZE, duration=RUN_OUT) is not None
    assert ledger.claim_step(job_id, step=JobStep.FINALIZE) is None
    job = ledger.job(job_id)
    assert (job.state, job.output) == (JobState.CANCELLED, None)


def test_a_step_given_back_counts_no_death(ledger: Ledger) -> None:
    job_id = ledger.accept()
    lease = ledger.claim_step(job_id)
    assert lease is not None
    with ledger.sessions.begin() as session:
        step_leases.release(session, lease)
    assert ledger.claim_step(job_id, owner="second") is not None
    assert ledger.job(job_id).step_crashes == 0


def test_a_step_given_back_with_an_error_is_sent_again_only_after_a_while(ledger: Ledger) -> None:
    job_id = ledger.accept()
    release_after_fault(ledger, job_id, Blame.TRANSIENT)
    assert ledger.job(job_id).step_error == "disk full"
    assert job_id not in _wanting(ledger)
    assert ledger.claim_step(job_id) is None
    ledger.set(job_id, step_not_before=sa.func.now())
    assert job_id in _wanting(ledger)


def test_an_error_that_will_not_pass_counts_like_a_death(ledger: Ledger) -> None:
    job_id = ledger.accept()
    release_after_fault(ledger, job_id, Blame.ENGINE)
    job = ledger.job(job_id)
    assert (job.step_crashes, job.step_failures) == (1, 0)


def test_a_fault_of_the_job_fails_it_at_once(ledger: Ledger) -> None:
    job_id = ledger.accept()
    release_after_fault(ledger, job_id, Blame.JOB)
    job = ledger.job(job_id)
    assert (job.state, job.error_code, job.error_message) == (JobState.FAILED, "full", "disk full")


def test_a_shard_that_was_written_ends_the_count_of_an_outage(ledger: Ledger) -> None:
    job_id = ledger.accept()
    release_after_fault(ledger, job_id, Blame.TRANSIENT)
    ledger.set(job_id, step_not_before=None)
    ledger.plan(job_id, (5,), complete=False)
    job = ledger.job(job_id)
    assert (job.step_failures, job.step_failing_since, job.step_error) == (0, None, None)


def test_a_fault_of_a_planner_that_was_replaced_changes_nothing(ledger: Ledger) -> None:
    job_id = ledger.accept()
    old = ledger.claim_step(job_id, owner="old", duration=RUN_OUT)
    assert old is not None
    assert ledger.claim_step(job_id, owner="new") is not None
    with ledger.sessions.begin() as session:
        full = Diagnosis(Blame.JOB, "full", "disk full")
        assert not step_leases.release_after_fault(session, old, full, limits=LIMITS)
    job = ledger.job(job_id)
    assert (job.state, job.step_owner, job.step_error) == (JobState.PLANNING, "new", None)


def release_after_fault(ledger: Ledger, job_id: str, blame: Blame) -> None:
    lease = ledger.claim_step(job_id)
    assert lease is not None
    with ledger.sessions.begin() as session:
        step_leases.release_after_fault(
            session, lease, Diagnosis(blame, "full", "disk full"), limits=LIMITS
        )


def test_a_planner_goes_on_behind_the_shards_that_are_there(ledger: Ledger) -> None:
    job_id = ledger.accept()
    first = ledger.plan(job_id, (5, 5), (7,), complete=False)
    with ledger.sessions.begin() as session:
        step_leases.release(session, first)
        second = step_leases.claim(
            session, job_id, step=JobStep.PLAN, owner="second", duration=LEASE
        )
        assert second is not None
        progress = plans.begin(session, second, fingerprint="f", model_digest="m")
    assert progress == PlanProgress(shards=2, rows=17)


def test_a_corpus_that_changed_between_two_planners_is_noticed(ledger: Ledger) -> None:
    job_id = ledger.accept()
    lease = ledger.plan(job_id, (5,), complete=False)
    with (
        pytest.raises(CorpusFailure, match="the corpus changed"),
        ledger.sessions.begin() as session,
    ):
        plans.begin(session, lease, fingerprint="another", model_digest="m")


def test_a_planner_that_was_replaced_writes_nothing(ledger: Ledger) -> None:
    job_id = ledger.accept()
    old = ledger.claim_step(job_id, owner="old", duration=RUN_OUT)
    new = ledger.claim_step(job_id, owner="new")
    assert old is not None
    assert new is not None
    with pytest.raises(LeaseLost), ledger.sessions.begin() as session:
        plans.add_shard(session, old, PlannedShard(0, "late", 0, (5,)))
    with pytest.raises(LeaseLost), ledger.sessions.begin() as session:
        plans.complete(session, old)
    with ledger.sessions.begin() as session:
        assert not step_leases.renew(session, old, duration=LEASE)
        step_leases.release(session, old)
    assert ledger.live(job_id) == []
    assert ledger.job(job_id).step_owner == "new"


def test_a_planner_does_not_outlive_a_pause_that_was_taken_back(ledger: Ledger) -> None:
    job_id = ledger.accept()
    old = ledger.plan(job_id, (5,), complete=False)
    with ledger.sessions.begin() as session:
        controls.pause(session, job_id, project_id=PROJECT)
        controls.resume(session, job_id, project_id=PROJECT)
    assert ledger.job(job_id).state is JobState.PLANNING
    with ledger.sessions.begin() as session:
        assert not step_leases.renew(session, old, duration=LEASE)
    with pytest.raises(LeaseLost), ledger.sessions.begin() as session:
        plans.add_shard(session, old, PlannedShard(1, "late", 5, (5,)))
    assert job_id in _wanting(ledger)
    ledger.plan(job_id, (5,))
    assert [chunk.first_row for chunk in ledger.live(job_id)] == [0, 5]


def test_a_finalizer_begins_again_when_a_chunk_was_committed_meanwhile(ledger: Ledger) -> None:
    job_id = ledger.running(5, 5)
    first, second = ledger.live(job_id)
    ledger.commit(ledger.claimed(first.id))
    late = ledger.claimed(second.id)
    with ledger.sessions.begin() as session:
        controls.cancel(session, job_id, project_id=PROJECT)
    lease = ledger.claim_step(job_id, step=JobStep.FINALIZE)
    assert lease is not None
    ledger.commit(late)
    with ledger.sessions.begin() as session:
        assert not finalization.finish(session, lease, output={"rows": 5})
        assert finalization.finish(session, lease, output={"rows": 10})
    assert ledger.job(job_id).state is JobState.CANCELLED


def test_a_cancelled_job_is_not_finalized_while_a_chunk_is_under_way(ledger: Ledger) -> None:
    job_id = ledger.running(5)
    ledger.claimed(ledger.only_chunk(job_id), duration=RUN_OUT)
    with ledger.sessions.begin() as session:
        controls.cancel(session, job_id, project_id=PROJECT)
    assert job_id not in _wanting(ledger, step=JobStep.FINALIZE)
    ledger.rescue()
    assert job_id in _wanting(ledger, step=JobStep.FINALIZE)


def _wanting(ledger: Ledger, *, step: JobStep = JobStep.PLAN) -> list[str]:
    """Jobs for which a message would go out now, after two seconds of settling."""
    with ledger.sessions.begin() as session:
        now = session.execute(sa.select(sa.func.now())).scalar_one()
        found = dispatch.step_candidates(session, step=step, limit=1_000, resend_before=now)
    return [candidate.job_id for candidate in found]
