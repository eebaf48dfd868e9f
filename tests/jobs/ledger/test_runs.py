"""Runs in the ledger: gangs are whole, and lost runs are paid for."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import sqlalchemy as sa

from jobs.decisions.run_verdict import Fault, RankOutcome, RunVerdict
from jobs.errors import Conflict
from jobs.ledger import checkpoints, controls, hosts
from jobs.lookups import clock
from jobs.states import JobState, RankState, RunState
from jobs.tables import Host, Run
from tests.jobs.ledger.building import PROJECT, Ledger
from tests.jobs.ledger.training import LOST, MOST_ERRORS, MOST_FAULTS, Training, at_once
from tests.support.waiting import wait_until

CRASHED = RunVerdict(RunState.LOST, reason="rank 0 crashed", rank=0, fault=Fault.JOB)
FAILED = RunVerdict(RunState.FAILED, reason="one label only", rank=0, code="one_label")
PREEMPTED = RunVerdict(RunState.PREEMPTED, reason="the job was paused")


@pytest.fixture
def training(ledger: Ledger) -> Training:
    return Training(ledger)


# Forming.


def test_a_gang_reserves_its_hosts_in_the_order_that_was_given(training: Training) -> None:
    job_id = training.job(machines=2)
    second, first = training.host(address="10.0.0.2"), training.host(address="10.0.0.1")
    run_id = training.formed(job_id, [first, second])
    run = training.run(run_id)
    assert (run.number, run.state, run.machines, run.address) == (
        1,
        RunState.FORMING,
        2,
        "10.0.0.1",
    )
    assert [rank.host for rank in training.ranks(run_id)] == [first.name, second.name]
    assert training.reserved([first, second]) == {run_id}


@pytest.mark.parametrize("trouble", ["busy", "draining", "gone"])
def test_a_gang_that_misses_one_host_reserves_none(training: Training, trouble: str) -> None:
    good, bad = training.hosts(2)
    if trouble == "busy":
        training.formed(training.job(), [bad])
    elif trouble == "draining":
        training.drain(bad.name, bad.incarnation)
    else:
        with training.sessions.begin() as session:
            hosts.leave(session, name=bad.name, incarnation=bad.incarnation)
    job_id = training.job(machines=2)
    assert training.form(job_id, [good, bad]) is None
    assert training.reserved([good]) == {None}
    assert training.runs_of(job_id) == []


def test_a_host_is_not_reserved_twice_for_one_gang(training: Training) -> None:
    host = training.host()
    assert training.form(training.job(machines=2), [host, host]) is None
    assert training.reserved([host]) == {None}


@pytest.mark.parametrize("state", [JobState.PAUSED, JobState.CANCELLING, JobState.PLANNING])
def test_a_job_that_does_not_run_gets_no_gang(training: Training, state: JobState) -> None:
    job_id, host = training.job(), training.host()
    training.ledger.set(job_id, state=state)
    assert training.form(job_id, [host]) is None
    assert training.reserved([host]) == {None}


def test_a_job_has_one_live_run_at_most(training: Training) -> None:
    job_id = training.job()
    training.formed(job_id)
    assert training.form(job_id, training.hosts(1)) is None


def test_of_many_that_form_at_once_for_one_job_exactly_one_wins(training: Training) -> None:
    job_id = training.job(machines=2)
    gangs = [training.hosts(2) for _ in range(4)]
    made = at_once([partial(training.form, job_id, gang) for gang in gangs])
    (run_id,) = [each for each in made if each is not None]
    reserved = [training.reserved(gang) for gang in gangs]
    assert sorted(map(str, reserved)) == sorted([str({run_id}), *["{None}"] * 3])


def test_gangs_that_want_the_same_hosts_at_once_never_get_half_each(training: Training) -> None:
    for _ in range(5):
        one, two, three, four = gang = training.hosts(4)
        wanted = [[one, two, three], [three, two, one], [four, three, two], [two, one, four]]
        jobs = [training.job(machines=3) for _ in wanted]
        made = at_once(
            [
                partial(training.form, job_id, names)
                for job_id, names in zip(jobs, wanted, strict=True)
            ]
        )
        (run_id,) = [each for each in made if each is not None]
        with training.sessions.begin() as session:
            names = [host.name for host in gang]
            query = sa.select(Host.run_id).where(Host.name.in_(names))
            assert sorted(map(str, session.scalars(query))) == sorted([run_id] * 3 + ["None"])


def test_a_run_resumes_from_the_newest_checkpoint_under_a_higher_number(training: Training) -> None:
    job_id = training.job()
    (lease,) = training.gang(job_id)
    checkpoint = training.checkpoint(lease, 40)
    training.lose(lease)
    run = training.run(training.formed(job_id))
    assert (run.number, run.checkpoint_id, run.step) == (2, checkpoint, 40)


# Claiming.


def test_a_claim_gives_what_is_needed_to_begin(training: Training) -> None:
    job_id = training.job(machines=2, train={"epochs": 7})
    gang = training.hosts(2)
    lease = training.claim(training.formed(job_id, gang), 1, gang[1].incarnation)
    assert lease is not None
    assert (lease.job_id, lease.project_id, lease.fence, lease.rank, lease.machines) == (
        job_id,
        PROJECT,
        1,
        1,
        2,
    )
    assert lease.spec.kind == "finetune"
    assert lease.spec.train.epochs == 7
    assert lease.dataset["splits"]["train"]["rows"] == 9
    assert lease.checkpoint_id is None


def test_a_message_to_an_earlier_incarnation_is_void(training: Training) -> None:
    host = training.host()
    run_id = training.formed(training.job(), [host])
    assert training.claim(run_id, 0, "another") is None
    assert training.claim(run_id, 0, host.incarnation) is not None


def test_a_rank_is_claimed_once_however_often_its_message_comes(training: Training) -> None:
    host = training.host()
    run_id = training.formed(training.job(), [host])
    claims = at_once([partial(training.claim, run_id, 0, host.incarnation) for _ in range(5)])
    assert len([each for each in claims if each is not None]) == 1


def test_a_rank_of_a_run_that_was_asked_to_stop_is_not_to_be_had(training: Training) -> None:
    host = training.host()
    run_id = training.formed(training.job(), [host])
    training.stop(run_id)
    assert training.claim(run_id, 0, host.incarnation) is None
    assert training.ranks(run_id)[0].outcome == RankOutcome.ABORTED


def test_there_is_no_rank_to_claim_beyond_the_gang(training: Training) -> None:
    host = training.host()
    assert training.claim(training.formed(training.job(), [host]), 1, host.incarnation) is None


def test_a_run_goes_on_once_every_rank_has_claimed_its_part(training: Training) -> None:
    gang = training.hosts(2)
    run_id = training.formed(training.job(machines=2), gang)
    training.claim(run_id, 1, gang[1].incarnation)
    assert training.run(run_id).state is RunState.FORMING
    training.claim(run_id, 0, gang[0].incarnation)
    run = training.run(run_id)
    assert run.state is RunState.RUNNING
    assert run.started_at is not None


def test_ranks_that_claim_at_the_same_moment_begin_the_run(training: Training) -> None:
    for _ in range(3):
        gang = training.hosts(3)
        run_id = training.formed(training.job(machines=3), gang)
        claims = at_once(
            [
                partial(training.claim, run_id, rank, host.incarnation)
                for rank, host in enumerate(gang)
            ]
        )
        assert None not in claims
        assert training.run(run_id).state is RunState.RUNNING


def test_a_claim_and_a_stop_that_meet_do_not_block_each_other(training: Training) -> None:
    """Both need the run and the rank: in the same order, or one of them is a deadlock's victim."""
    host = training.host()
    run_id = training.formed(training.job(), [host])
    with ThreadPoolExecutor(2) as pool, training.sessions.begin() as session:
        session.execute(sa.select(Run.id).where(Run.id == run_id).with_for_update())
        stop = pool.submit(training.stop, run_id)
        wait_until(lambda: training.waiting() == 1)
        claim = pool.submit(training.claim, run_id, 0, host.incarnation)
        wait_until(lambda: training.waiting() == 2)
        session.commit()
        assert stop.result(10)
        assert claim.result(10) is None


# Stopping.


def test_a_stop_now_is_stronger_than_one_after_a_checkpoint(training: Training) -> None:
    (lease,) = training.gang(training.job())
    assert training.stop(lease.run_id, "checkpoint", "paused")
    assert not training.stop(lease.run_id, "checkpoint", "again")
    assert training.stop(lease.run_id, "now", "cancelled")
    assert not training.stop(lease.run_id, "checkpoint", "late")
    assert not training.stop(lease.run_id, "now", "twice")
    run = training.run(lease.run_id)
    assert (run.stop, run.stop_reason) == ("now", "cancelled")


def test_a_stop_is_told_with_the_runs_number(training: Training) -> None:
    (lease,) = training.gang(training.job())
    training.stop(lease.run_id, "checkpoint", "paused")
    assert training.told(lease.job_id, "run_stops") == [
        {"run": 1, "how": "checkpoint", "reason": "paused"}
    ]


def test_ranks_that_have_not_begun_end_with_the_stop_and_others_do_not(training: Training) -> None:
    gang = training.hosts(2)
    run_id = training.formed(training.job(machines=2), gang)
    training.claim(run_id, 0, gang[0].incarnation)
    training.stop(run_id, "now")
    assert [rank.state for rank in training.ranks(run_id)] == [RankState.LEASED, RankState.ENDED]


# Concluding.


def test_a_lost_run_frees_its_hosts_and_its_job_goes_on(training: Training) -> None:
    gang, job_id = training.hosts(2), training.job(machines=2)
    run_id = training.formed(job_id, gang)
    assert training.conclude(run_id, LOST)
    assert not training.conclude(run_id, FAILED)
    assert training.reserved(gang) == {None}
    job = training.ledger.job(job_id)
    assert (job.state, job.faults, job.errors, job.run_error) == (
        JobState.RUNNING,
        1,
        0,
        "rank 0 died",
    )
    run = training.run(run_id)
    assert (run.state, run.reason, run.failing_rank) == (RunState.LOST, "rank 0 died", 0)


def test_a_fault_of_the_job_fails_it_at_once(training: Training) -> None:
    job_id = training.job()
    training.conclude(training.formed(job_id), FAILED)
    job = training.ledger.job(job_id)
    assert (job.state, job.error_code, job.error_message) == (
        JobState.FAILED,
        "one_label",
        "one label only",
    )


@pytest.mark.parametrize(
    ("verdict", "most", "code"),
    [(LOST, MOST_FAULTS, "run_lost"), (CRASHED, MOST_ERRORS, "run_crashed")],
)
def test_lost_runs_are_repeated_so_often_and_then_fail_the_job(
    training: Training, verdict: RunVerdict, most: int, code: str
) -> None:
    job_id = training.job()
    for _ in range(most):
        training.conclude(training.formed(job_id), verdict)
        assert training.ledger.job(job_id).state is JobState.RUNNING
    training.conclude(training.formed(job_id), verdict)
    job = training.ledger.job(job_id)
    assert (job.state, job.error_code) == (JobState.FAILED, code)
    assert f"{most + 1} runs ended early" in (job.error_message or "")
    assert verdict.reason in (job.error_message or "")  # type: ignore[operator]


def test_faults_of_machines_and_errors_of_the_job_have_budgets_of_their_own(
    training: Training,
) -> None:
    job_id = training.job()
    for verdict in [LOST, CRASHED, LOST, LOST]:
        training.conclude(training.formed(job_id), verdict)
    job = training.ledger.job(job_id)
    assert (job.state, job.faults, job.errors) == (JobState.RUNNING, 3, 1)


def test_a_run_that_came_further_than_its_start_pays_once(training: Training) -> None:
    job_id = training.job()
    for step in range(1, 2 * MOST_FAULTS):
        (lease,) = training.gang(job_id)
        training.checkpoint(lease, step)
        training.conclude(lease.run_id, LOST)
        assert training.ledger.job(job_id).faults == 1


def test_a_run_whose_checkpoint_is_damaged_came_no_further(training: Training) -> None:
    job_id = training.job()
    for number in range(1, 3):
        (lease,) = training.gang(job_id)
        damaged = training.checkpoint(lease, number)
        with training.sessions.begin() as session:
            checkpoints.mark_damaged(session, lease, damaged, reason="torn")
        training.conclude(lease.run_id, LOST)
        assert training.ledger.job(job_id).faults == number


def test_a_job_waits_longer_after_each_lost_run(training: Training) -> None:
    job_id = training.job()
    waits = []
    for _ in range(MOST_FAULTS):
        training.conclude(training.formed(job_id), LOST)
        with training.sessions.begin() as session:
            not_before = training.ledger.job(job_id).not_before
            assert not_before is not None
            waits.append(round((not_before - clock.now(session)).total_seconds()))
    assert waits == [0, 2, 6]


def test_a_preempted_run_costs_nothing(training: Training) -> None:
    job_id = training.job()
    training.conclude(training.formed(job_id), LOST)
    for _ in range(3 * MOST_FAULTS):
        training.conclude(training.formed(job_id), PREEMPTED)
    job = training.ledger.job(job_id)
    assert (job.state, job.faults, job.run_error) == (JobState.RUNNING, 1, None)


@pytest.mark.parametrize("verdict", [FAILED, CRASHED, LOST, PREEMPTED])
@pytest.mark.parametrize("state", [JobState.PAUSED, JobState.CANCELLING, JobState.EXPIRED])
def test_a_verdict_does_not_move_a_job_that_is_elsewhere(
    training: Training, state: JobState, verdict: RunVerdict
) -> None:
    gang, job_id = training.hosts(1), training.job()
    run_id = training.formed(job_id, gang)
    finished = sa.func.now() if state is JobState.EXPIRED else None
    training.ledger.set(job_id, state=state, finished_at=finished, errors=9, faults=9)
    assert training.conclude(run_id, verdict)
    assert training.ledger.job(job_id).state is state
    assert training.reserved(gang) == {None}


# What users do.


def test_a_cancelled_job_ends_when_its_run_has(training: Training) -> None:
    job_id = training.job()
    (lease,) = training.gang(job_id)
    training.control(controls.cancel, job_id)
    training.end_cancelled()
    assert training.ledger.job(job_id).state is JobState.CANCELLING
    training.conclude(lease.run_id, PREEMPTED)
    training.end_cancelled()
    assert training.ledger.job(job_id).state is JobState.CANCELLED


def test_cancelling_a_bulk_job_is_not_ended_as_if_it_trained(training: Training) -> None:
    job_id = training.ledger.running(3)
    training.control(controls.cancel, job_id)
    training.end_cancelled()
    assert training.ledger.job(job_id).state is JobState.CANCELLING


def test_a_paused_job_goes_on_under_the_next_number(training: Training) -> None:
    job_id = training.job()
    (lease,) = training.gang(job_id)
    training.checkpoint(lease, 7)
    training.control(controls.pause, job_id)
    training.conclude(lease.run_id, PREEMPTED)
    assert training.form(job_id, training.hosts(1)) is None
    training.control(controls.resume, job_id)
    run = training.run(training.formed(job_id))
    assert (run.number, run.step) == (2, 7)


def test_a_retried_job_has_its_budgets_back_and_goes_on_from_its_checkpoint(
    training: Training,
) -> None:
    job_id = training.job()
    (lease,) = training.gang(job_id)
    training.checkpoint(lease, 7)
    training.conclude(lease.run_id, CRASHED)
    training.conclude(training.formed(job_id), CRASHED)
    assert training.ledger.job(job_id).state is JobState.FAILED
    training.control(controls.retry, job_id)
    job = training.ledger.job(job_id)
    assert (job.state, job.faults, job.errors, job.not_before, job.run_error) == (
        JobState.RUNNING,
        0,
        0,
        None,
        None,
    )
    run = training.run(training.formed(job_id))
    assert (run.number, run.step) == (3, 7)


def test_a_cancelled_job_can_be_taken_up_again(training: Training) -> None:
    job_id = training.job()
    training.control(controls.cancel, job_id)
    training.end_cancelled()
    training.control(controls.retry, job_id)
    training.formed(job_id)


def test_a_job_that_has_succeeded_is_not_retried(training: Training) -> None:
    (lease,) = training.gang(training.job())
    training.succeed(lease)
    with pytest.raises(Conflict, match="submit it again"):
        training.control(controls.retry, lease.job_id)
