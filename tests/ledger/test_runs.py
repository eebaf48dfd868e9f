"""Runs in the ledger: gangs are whole, and the fence decides who may write."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs import clock
from jobs.decisions.judging import Fault, Outcome, Verdict
from jobs.errors import Conflict, LeaseLost
from jobs.ledger import checkpoints, controls, hosts, measuring, runs
from jobs.ledger.runs import Orders, RankLease
from jobs.states import JobState, RankState, RunState
from jobs.tables import Checkpoint, CheckpointPart, Host, LogLine, Point, Run
from tests.ledger.building import LEASE, PROJECT, RUN_OUT, Ledger
from tests.ledger.training import MOST_ERRORS, MOST_FAULTS, Training
from tests.support.waiting import wait_until

LOST = Verdict(RunState.LOST, reason="rank 0 died", rank=0, fault=Fault.INFRASTRUCTURE)
CRASHED = Verdict(RunState.LOST, reason="rank 0 crashed", rank=0, fault=Fault.JOB)
FAILED = Verdict(RunState.FAILED, reason="one label only", rank=0, code="one_label")
PREEMPTED = Verdict(RunState.PREEMPTED, reason="the job was paused")


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
        _drain(training, bad.name, bad.incarnation)
    else:
        with training.sessions.begin() as session:
            hosts.leave(session, name=bad.name, incarnation=bad.incarnation)
    job_id = training.job(machines=2)
    assert training.form(job_id, [good, bad]) is None
    assert training.reserved([good]) == {None}
    assert training.runs(job_id) == []


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
    made = _at_once([partial(training.form, job_id, gang) for gang in gangs])
    (run_id,) = [each for each in made if each is not None]
    held = [training.reserved(gang) for gang in gangs]
    assert sorted(map(str, held)) == sorted([str({run_id}), *["{None}"] * 3])


def test_gangs_that_want_the_same_hosts_at_once_never_get_half_each(training: Training) -> None:
    for _ in range(5):
        one, two, three, four = gang = training.hosts(4)
        wanted = [[one, two, three], [three, two, one], [four, three, two], [two, one, four]]
        jobs = [training.job(machines=3) for _ in wanted]
        made = _at_once(
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
    (held,) = training.gang(job_id)
    checkpoint = training.checkpoint(held, 40)
    _lose(training, held)
    run = training.run(training.formed(job_id))
    assert (run.number, run.checkpoint_id, run.step) == (2, checkpoint, 40)


# Claiming.


def test_a_claim_gives_what_is_needed_to_begin(training: Training) -> None:
    job_id = training.job(machines=2, train={"epochs": 7})
    gang = training.hosts(2)
    held = training.claim(training.formed(job_id, gang), 1, gang[1].incarnation)
    assert held is not None
    assert (held.job_id, held.project_id, held.fence, held.rank, held.machines) == (
        job_id,
        PROJECT,
        1,
        1,
        2,
    )
    assert held.spec.kind == "finetune"
    assert held.spec.train.epochs == 7
    assert held.dataset["splits"]["train"]["rows"] == 9
    assert held.checkpoint_id is None


def test_a_message_to_an_earlier_incarnation_is_void(training: Training) -> None:
    host = training.host()
    run_id = training.formed(training.job(), [host])
    assert training.claim(run_id, 0, "another") is None
    assert training.claim(run_id, 0, host.incarnation) is not None


def test_a_rank_is_claimed_once_however_often_its_message_comes(training: Training) -> None:
    host = training.host()
    run_id = training.formed(training.job(), [host])
    claims = _at_once([partial(training.claim, run_id, 0, host.incarnation) for _ in range(5)])
    assert len([each for each in claims if each is not None]) == 1


def test_a_rank_of_a_run_that_was_asked_to_stop_is_not_to_be_had(training: Training) -> None:
    host = training.host()
    run_id = training.formed(training.job(), [host])
    training.stop(run_id)
    assert training.claim(run_id, 0, host.incarnation) is None
    assert training.ranks(run_id)[0].outcome == Outcome.ENDED


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
        claims = _at_once(
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
        wait_until(lambda: _waiting(training) == 1)
        claim = pool.submit(training.claim, run_id, 0, host.incarnation)
        wait_until(lambda: _waiting(training) == 2)
        session.commit()
        assert stop.result(10)
        assert claim.result(10) is None


# Renewing.


def test_a_renewed_rank_hears_its_orders(training: Training) -> None:
    one, two = training.gang(training.job(machines=2), 2)
    assert _renew(training, one) == Orders(None, None, None, all_ready=False)
    with training.sessions.begin() as session:
        runs.choose_port(session, one, 29_500)
    assert _renew(training, one, phase=runs.READY) == Orders(None, None, 29_500, all_ready=False)
    assert _renew(training, two, phase=runs.READY) == Orders(None, None, 29_500, all_ready=True)
    training.stop(one.run_id, "checkpoint", "the job was paused")
    assert _renew(training, two) == Orders(
        "checkpoint", "the job was paused", 29_500, all_ready=False
    )


def test_ranks_are_not_ready_while_one_has_not_come(training: Training) -> None:
    gang = training.hosts(2)
    run_id = training.formed(training.job(machines=2), gang)
    first = training.claim(run_id, 0, gang[0].incarnation)
    assert first is not None
    orders = _renew(training, first, phase=runs.READY)
    assert orders is not None
    assert not orders.all_ready


def test_only_a_renewal_that_tells_of_progress_counts_as_such(training: Training) -> None:
    (held,) = training.gang(training.job())
    before = training.rank(held).progress_at
    _renew(training, held)
    assert training.rank(held).progress_at == before
    _renew(training, held, progress=True)
    after = training.rank(held).progress_at
    assert before is not None
    assert after is not None
    assert after > before


def test_a_lease_that_ran_out_but_was_not_judged_is_still_ours(training: Training) -> None:
    (held,) = training.gang(training.job(), lease=RUN_OUT)
    assert _renew(training, held) is not None
    assert not _end_overdue(training, held, Outcome.SILENT)
    assert training.rank(held).state is RankState.LEASED


def test_a_rank_that_was_judged_silent_cannot_renew(training: Training) -> None:
    (held,) = training.gang(training.job(), lease=RUN_OUT)
    assert _end_overdue(training, held, Outcome.SILENT)
    assert _renew(training, held) is None
    assert not training.end(held, Outcome.DONE)
    assert training.rank(held).outcome == Outcome.SILENT


def test_a_renewal_under_way_saves_the_rank(training: Training) -> None:
    (held,) = training.gang(training.job(), lease=RUN_OUT)
    with ThreadPoolExecutor(1) as pool, training.sessions.begin() as session:
        assert runs.renew(session, held, lease=LEASE, phase="training", progress=True)
        overdue = pool.submit(_end_overdue, training, held, Outcome.SILENT)
        wait_until(lambda: _waiting(training) == 1)
        session.commit()
        assert overdue.result(10) is False


def test_a_judgement_under_way_ends_the_rank_before_it_renews(training: Training) -> None:
    (held,) = training.gang(training.job(), lease=RUN_OUT)
    with ThreadPoolExecutor(1) as pool, training.sessions.begin() as session:
        assert runs.end_overdue(session, held.run_id, held.rank, Outcome.SILENT)
        renewal = pool.submit(_renew, training, held)
        wait_until(lambda: _waiting(training) == 1)
        session.commit()
        assert renewal.result(10) is None


def test_a_rank_that_has_claimed_is_not_absent(training: Training) -> None:
    (held,) = training.gang(training.job())
    assert not _end_overdue(training, held, Outcome.ABSENT)


# Ending.


def test_a_rank_ends_once(training: Training) -> None:
    (held,) = training.gang(training.job())
    assert training.end(held, Outcome.CRASHED, exit_code=1, error="a\0b")
    assert not training.end(held, Outcome.DONE)
    rank = training.rank(held)
    assert (rank.outcome, rank.exit_code, rank.error) == (Outcome.CRASHED, 1, "a\ufffdb")


@pytest.mark.parametrize("error", ["half a pair: \ud83d", "nothing: \0", "x" * 100_000])
def test_whatever_a_rank_says_at_its_end_can_be_stored(training: Training, error: str) -> None:
    (held,) = training.gang(training.job())
    assert training.end(held, Outcome.FAULT, error_code="bad", error=error)
    assert len(training.rank(held).error or "") <= 8_000


Writer = Callable[[Session, RankLease, int], object]

WRITERS: dict[str, Writer] = {
    "tell_progress": lambda s, held, _: runs.tell_progress(s, held, step=9, steps_total=10),
    "choose_port": lambda s, held, _: runs.choose_port(s, held, 1),
    "add_part": lambda s, held, _: checkpoints.add_part(s, held, step=9, files=[]),
    "complete": lambda s, held, _: checkpoints.complete(
        s,
        held,
        step=9,
        metric=None,
        best=False,
        manifest_key="k",
        manifest_sha256="s",
        size=1,
    ),
    "add_points": lambda s, held, _: measuring.add_points(s, held, [(9, {"loss": 9.0})]),
    "mark_damaged": lambda s, held, known: checkpoints.mark_damaged(s, held, known, reason="x"),
    "mark_deleted": lambda s, held, known: checkpoints.mark_deleted(s, held, [known]),
    "succeed": lambda s, held, _: runs.succeed(s, held, output={"rows": 1}),
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("stale", ["its run was lost", "its rank ended", "its job succeeded"])
def test_a_stale_rank_changes_nothing(training: Training, name: str, stale: str) -> None:
    job_id = training.job()
    (held,) = training.gang(job_id)
    known = training.checkpoint(held, 5)
    if stale == "its run was lost":
        _lose(training, held)
        training.gang(job_id)
    elif stale == "its rank ended":
        training.end(held, Outcome.CRASHED)
    else:
        _succeed(training, held)
    before = _everything(training, job_id)
    with pytest.raises(LeaseLost), training.sessions.begin() as session:
        WRITERS[name](session, held, known)
    assert _everything(training, job_id) == before


def test_a_stale_rank_cannot_end_renew_or_be_judged_again(training: Training) -> None:
    job_id = training.job()
    (held,) = training.gang(job_id)
    _lose(training, held)
    training.gang(job_id)
    before = _everything(training, job_id)
    assert not training.end(held, Outcome.DONE)
    assert _renew(training, held) is None
    assert not training.conclude(held.run_id, FAILED)
    assert not training.stop(held.run_id, "now")
    assert _everything(training, job_id) == before


def test_a_writer_that_meets_the_end_of_its_run_comes_too_late(training: Training) -> None:
    (held,) = training.gang(training.job())
    training.end(held, Outcome.ENDED)
    other = training.gang(training.job())[0]
    with ThreadPoolExecutor(1) as pool, training.sessions.begin() as session:
        assert runs.conclude(
            session, other.run_id, LOST, most_faults=MOST_FAULTS, most_errors=MOST_ERRORS
        )
        late = pool.submit(training.checkpoint, other, 9)
        wait_until(lambda: _waiting(training) == 1)
        session.commit()
        with pytest.raises(LeaseLost):
            late.result(10)
    assert training.newest(other.job_id) is None


def test_a_log_keeps_what_was_written_even_by_a_rank_that_is_over(training: Training) -> None:
    (held,) = training.gang(training.job())
    _lose(training, held)
    with training.sessions.begin() as session:
        measuring.add_log_lines(session, held, ["last words", "with \0", "y" * 9_000])
    with training.sessions.begin() as session:
        lines = session.scalars(sa.select(LogLine.text).where(LogLine.job_id == held.job_id)).all()
    assert lines == ["last words", "with \ufffd", "y" * 4_000]


def test_a_resumed_run_writes_over_what_it_does_again(training: Training) -> None:
    job_id = training.job()
    (first,) = training.gang(job_id)
    _add_points(training, first, {1: 3.0, 2: 2.0})
    _lose(training, first)
    (second,) = training.gang(job_id)
    _add_points(training, second, {2: 2.5})
    with training.sessions.begin() as session:
        query = sa.select(Point.step, Point.value, Point.run_number).where(Point.job_id == job_id)
        assert sorted(map(tuple, session.execute(query))) == [(1, 3.0, 1), (2, 2.5, 2)]


def test_an_evaluation_is_an_event_as_well_and_may_be_no_number(training: Training) -> None:
    (held,) = training.gang(training.job())
    values = {"loss": 1.0, "validation/loss": float("nan"), "validation/accuracy": 0.5}
    with training.sessions.begin() as session:
        measuring.add_points(session, held, [(3, values)])
    assert training.told(held.job_id, "evaluation") == [
        {"run": 1, "step": 3, "values": {"loss": None, "accuracy": 0.5}}
    ]


def test_success_ends_run_ranks_and_job_and_frees_the_hosts(training: Training) -> None:
    gang = training.hosts(2)
    job_id = training.job(machines=2)
    held, _ = training.claimed(training.formed(job_id, gang))
    _succeed(training, held)
    job = training.ledger.job(job_id)
    assert (job.state, job.output) == (JobState.SUCCEEDED, {"rows": 1})
    assert training.run(held.run_id).state is RunState.SUCCEEDED
    assert {rank.outcome for rank in training.ranks(held.run_id)} == {Outcome.DONE}
    assert training.reserved(gang) == {None}


@pytest.mark.parametrize("state", [JobState.PAUSED, JobState.CANCELLING])
def test_a_result_that_comes_after_a_pause_or_cancel_is_thrown_away(
    training: Training, state: JobState
) -> None:
    (held,) = training.gang(training.job())
    training.ledger.set(held.job_id, state=state)
    with pytest.raises(LeaseLost, match="no longer running"):
        _succeed(training, held)
    assert training.run(held.run_id).state is RunState.RUNNING
    assert training.rank(held).state is RankState.LEASED


def test_a_host_that_is_started_anew_and_a_success_do_not_block_each_other(
    training: Training,
) -> None:
    """Both need the host and its rank."""
    host = training.host()
    (held,) = training.claimed(training.formed(training.job(), [host]))
    with ThreadPoolExecutor(2) as pool, training.sessions.begin() as session:
        session.execute(sa.select(Host.name).where(Host.name == host.name).with_for_update())
        arrival = pool.submit(training.host, host.name)
        wait_until(lambda: _waiting(training) == 1)
        success = pool.submit(_succeed, training, held)
        wait_until(lambda: _waiting(training) == 2)
        session.commit()
        arrival.result(10)
        success.result(10)
    assert training.ledger.job(held.job_id).state is JobState.SUCCEEDED


# Stopping.


def test_a_stop_now_is_stronger_than_one_after_a_checkpoint(training: Training) -> None:
    (held,) = training.gang(training.job())
    assert training.stop(held.run_id, "checkpoint", "paused")
    assert not training.stop(held.run_id, "checkpoint", "again")
    assert training.stop(held.run_id, "now", "cancelled")
    assert not training.stop(held.run_id, "checkpoint", "late")
    assert not training.stop(held.run_id, "now", "twice")
    run = training.run(held.run_id)
    assert (run.stop, run.stop_reason) == ("now", "cancelled")


def test_a_stop_is_told_with_the_runs_number(training: Training) -> None:
    (held,) = training.gang(training.job())
    training.stop(held.run_id, "checkpoint", "paused")
    assert training.told(held.job_id, "run_stops") == [
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
    training: Training, verdict: Verdict, most: int, code: str
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
        (held,) = training.gang(job_id)
        training.checkpoint(held, step)
        training.conclude(held.run_id, LOST)
        assert training.ledger.job(job_id).faults == 1


def test_a_run_whose_checkpoint_is_damaged_came_no_further(training: Training) -> None:
    job_id = training.job()
    for number in range(1, 3):
        (held,) = training.gang(job_id)
        damaged = training.checkpoint(held, number)
        with training.sessions.begin() as session:
            checkpoints.mark_damaged(session, held, damaged, reason="torn")
        training.conclude(held.run_id, LOST)
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
    training: Training, state: JobState, verdict: Verdict
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
    (held,) = training.gang(job_id)
    _control(training, controls.cancel, job_id)
    _end_cancelled(training)
    assert training.ledger.job(job_id).state is JobState.CANCELLING
    training.conclude(held.run_id, PREEMPTED)
    _end_cancelled(training)
    assert training.ledger.job(job_id).state is JobState.CANCELLED


def test_cancelling_a_bulk_job_is_not_ended_as_if_it_trained(training: Training) -> None:
    job_id = training.ledger.running(3)
    _control(training, controls.cancel, job_id)
    _end_cancelled(training)
    assert training.ledger.job(job_id).state is JobState.CANCELLING


def test_a_paused_job_goes_on_under_the_next_number(training: Training) -> None:
    job_id = training.job()
    (held,) = training.gang(job_id)
    training.checkpoint(held, 7)
    _control(training, controls.pause, job_id)
    training.conclude(held.run_id, PREEMPTED)
    assert training.form(job_id, training.hosts(1)) is None
    _control(training, controls.resume, job_id)
    run = training.run(training.formed(job_id))
    assert (run.number, run.step) == (2, 7)


def test_a_retried_job_has_its_budgets_back_and_goes_on_from_its_checkpoint(
    training: Training,
) -> None:
    job_id = training.job()
    (held,) = training.gang(job_id)
    training.checkpoint(held, 7)
    training.conclude(held.run_id, CRASHED)
    training.conclude(training.formed(job_id), CRASHED)
    assert training.ledger.job(job_id).state is JobState.FAILED
    _control(training, controls.retry, job_id)
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
    _control(training, controls.cancel, job_id)
    _end_cancelled(training)
    _control(training, controls.retry, job_id)
    training.formed(job_id)


def test_a_job_that_has_succeeded_is_not_retried(training: Training) -> None:
    (held,) = training.gang(training.job())
    _succeed(training, held)
    with pytest.raises(Conflict, match="submit it anew"):
        _control(training, controls.retry, held.job_id)


# Hosts.


def test_a_host_that_is_started_anew_has_lost_its_rank(training: Training) -> None:
    host = training.host()
    (held,) = training.claimed(training.formed(training.job(), [host]))
    training.host(host.name)
    rank = training.rank(held)
    assert (rank.outcome, rank.error) == (Outcome.SILENT, "the host's agent was started anew")
    assert _renew(training, held) is None
    assert training.reserved([host]) == {held.run_id}  # until the run is judged


def test_a_host_that_is_started_anew_while_a_gang_is_formed_loses_that_rank_too(
    training: Training,
) -> None:
    """Otherwise its message would be void, and the gang would wait for it in vain."""
    host, job_id = training.host(), training.job()
    with ThreadPoolExecutor(1) as pool, training.sessions.begin() as session:
        run_id = runs.form(session, job_id, [host.name])
        assert run_id is not None
        arrival = pool.submit(training.host, host.name)
        wait_until(lambda: _waiting(training) == 1)
        session.commit()
        arrival.result(10)
    assert training.ranks(run_id)[0].state is RankState.ENDED


def test_another_hosts_rank_is_not_touched_by_an_arrival(training: Training) -> None:
    gang = training.hosts(2)
    held = training.claimed(training.formed(training.job(machines=2), gang))
    training.host(gang[0].name)
    assert [training.rank(each).state for each in held] == [RankState.ENDED, RankState.LEASED]


def test_a_beat_keeps_a_host_and_one_under_a_taken_name_does_not(training: Training) -> None:
    old = training.host()
    _age(training, old.name, seconds=900)
    assert _beat(training, old)
    new = training.host(old.name)
    assert not _beat(training, old)
    row = training.host_row(new.name)
    assert row is not None
    assert row.incarnation == new.incarnation


def test_a_beat_of_a_host_that_was_forgotten_brings_it_back(training: Training) -> None:
    host = training.host()
    _age(training, host.name, seconds=900)
    assert host.name in _forget(training)
    assert _beat(training, host)
    assert training.host_row(host.name) is not None


def test_a_draining_host_stays_so_until_it_is_started_anew(training: Training) -> None:
    host = training.host()
    _drain(training, host.name, host.incarnation)
    assert _beat(training, host)
    assert training.form(training.job(), [host]) is None
    assert training.form(training.job(), [training.host(host.name)]) is not None


def test_an_old_agent_neither_drains_nor_removes_its_successor(training: Training) -> None:
    old = training.host()
    training.host(old.name)
    _drain(training, old.name, old.incarnation)
    with training.sessions.begin() as session:
        hosts.leave(session, name=old.name, incarnation=old.incarnation)
    row = training.host_row(old.name)
    assert row is not None
    assert not row.draining


def test_a_silent_host_is_forgotten_unless_a_run_holds_it(training: Training) -> None:
    idle, busy, alive = training.hosts(3)
    training.formed(training.job(), [busy])
    for host in (idle, busy):
        _age(training, host.name, seconds=900)
    assert _forget(training) == [idle.name]
    assert training.host_row(busy.name) is not None
    assert training.host_row(alive.name) is not None


def _at_once(calls: list[Callable[[], Any]]) -> list[Any]:
    start = threading.Barrier(len(calls))

    def call(one: Callable[[], Any]) -> Any:
        start.wait()
        return one()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(call, calls))


def _waiting(training: Training) -> int:
    """Sessions of this database that wait for a lock."""
    with training.ledger.engine.connect() as connection:
        query = (
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return int(connection.scalar(sa.text(query)) or 0)


def _renew(
    training: Training, held: RankLease, *, phase: str = runs.PREPARING, progress: bool = False
) -> Orders | None:
    with training.sessions.begin() as session:
        return runs.renew(session, held, lease=LEASE, phase=phase, progress=progress)


def _end_overdue(training: Training, held: RankLease, outcome: Outcome) -> bool:
    with training.sessions.begin() as session:
        return runs.end_overdue(session, held.run_id, held.rank, outcome)


def _lose(training: Training, held: RankLease) -> None:
    """End a run as control does when its rank has died."""
    training.end(held, Outcome.CRASHED)
    assert training.conclude(held.run_id, LOST)


def _succeed(training: Training, held: RankLease) -> None:
    with training.sessions.begin() as session:
        runs.succeed(session, held, output={"rows": 1})


def _add_points(training: Training, held: RankLease, losses: dict[int, float]) -> None:
    with training.sessions.begin() as session:
        measuring.add_points(session, held, [(step, {"loss": v}) for step, v in losses.items()])


def _everything(training: Training, job_id: str) -> list[Any]:
    """All that is on record of a job."""
    own = [run.id for run in training.runs(job_id)]
    tables: list[tuple[Any, Any]] = [
        (Run, Run.job_id == job_id),
        (Checkpoint, Checkpoint.job_id == job_id),
        (CheckpointPart, CheckpointPart.run_id.in_(own)),
        (Point, Point.job_id == job_id),
    ]
    ranks = [rank for run_id in own for rank in training.ranks(run_id)]
    found: list[Any] = [_fields(each) for each in [training.ledger.job(job_id), *ranks]]
    with training.sessions.begin() as session:
        for table, mine in tables:
            rows = session.scalars(sa.select(table).where(mine))
            found += sorted((_fields(row) for row in rows), key=str)
    return [*found, len(training.ledger.events(job_id))]


def _fields(row: Any) -> dict[str, Any]:
    return {column.key: getattr(row, column.key) for column in sa.inspect(row).mapper.column_attrs}


def _control(training: Training, operation: Any, job_id: str) -> None:
    with training.sessions.begin() as session:
        operation(session, job_id, project_id=PROJECT)


def _end_cancelled(training: Training) -> None:
    with training.sessions.begin() as session:
        runs.end_cancelled(session, kinds=["finetune", "evaluate"])


def _drain(training: Training, name: str, incarnation: str) -> None:
    with training.sessions.begin() as session:
        hosts.drain(session, name=name, incarnation=incarnation)


def _beat(training: Training, host: hosts.Presented) -> bool:
    with training.sessions.begin() as session:
        return hosts.beat(session, host)


def _forget(training: Training) -> list[str]:
    with training.sessions.begin() as session:
        return hosts.forget_silent(session, seconds=600)


def _age(training: Training, name: str, *, seconds: float) -> None:
    with training.sessions.begin() as session:
        beat_at = sa.func.now() - timedelta(seconds=seconds)
        session.execute(sa.update(Host).where(Host.name == name).values(beat_at=beat_at))
