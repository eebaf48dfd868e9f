"""Ranks in the ledger: the fence decides who may write."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.decisions.run_verdict import RankOutcome
from jobs.errors import LeaseLost
from jobs.ledger import checkpoints, ranks, runs, telemetry
from jobs.ledger.ranks import Orders, RankLease, RunProgress
from jobs.states import JobState, RankState, RunState
from jobs.tables import Checkpoint, CheckpointPart, Host, LogLine, Point, Run
from tests.jobs.ledger.building import LEASE, RUN_OUT, Ledger
from tests.jobs.ledger.training import LOST, MOST_ERRORS, MOST_FAULTS, Training
from tests.support.waiting import wait_until


@pytest.fixture
def training(ledger: Ledger) -> Training:
    return Training(ledger)


# Renewing.


def test_a_renewed_rank_hears_its_orders(training: Training) -> None:
    one, two = training.gang(training.job(machines=2), 2)
    assert training.renew(one) == Orders(None, None, None, all_ready=False)
    with training.sessions.begin() as session:
        ranks.choose_port(session, one, 29_500)
    assert training.renew(one, phase=ranks.READY) == Orders(None, None, 29_500, all_ready=False)
    assert training.renew(two, phase=ranks.READY) == Orders(None, None, 29_500, all_ready=True)
    training.stop(one.run_id, "checkpoint", "the job was paused")
    assert training.renew(two) == Orders(
        "checkpoint", "the job was paused", 29_500, all_ready=False
    )


def test_ranks_are_not_ready_while_one_has_not_come(training: Training) -> None:
    gang = training.hosts(2)
    run_id = training.formed(training.job(machines=2), gang)
    first = training.claim(run_id, 0, gang[0].incarnation)
    assert first is not None
    orders = training.renew(first, phase=ranks.READY)
    assert orders is not None
    assert not orders.all_ready


def test_a_gang_that_is_stopped_while_it_forms_is_never_ready(training: Training) -> None:
    gang = training.hosts(2)
    run_id = training.formed(training.job(machines=2), gang)
    first = training.claim(run_id, 0, gang[0].incarnation)
    assert first is not None
    training.stop(run_id, "checkpoint", "the job was paused")
    assert [rank.state for rank in training.ranks(run_id)] == [RankState.LEASED, RankState.ENDED]
    assert training.renew(first, phase=ranks.READY) == Orders(
        "checkpoint", "the job was paused", None, all_ready=False
    )


def test_a_gang_whose_rank_has_ended_is_not_ready(training: Training) -> None:
    one, two = training.gang(training.job(machines=2), 2)
    training.renew(two, phase=ranks.READY)
    training.end(two, RankOutcome.CRASHED)
    orders = training.renew(one, phase=ranks.READY)
    assert orders is not None
    assert not orders.all_ready


def test_only_a_renewal_that_tells_of_progress_counts_as_such(training: Training) -> None:
    (lease,) = training.gang(training.job())
    before = training.rank(lease).progress_at
    training.renew(lease)
    assert training.rank(lease).progress_at == before
    training.renew(lease, progress=True)
    after = training.rank(lease).progress_at
    assert before is not None
    assert after is not None
    assert after > before


def test_a_lease_that_ran_out_but_was_not_judged_is_still_ours(training: Training) -> None:
    (lease,) = training.gang(training.job(), duration=RUN_OUT)
    assert training.renew(lease) is not None
    assert not training.end_overdue(lease, RankOutcome.SILENT)
    assert training.rank(lease).state is RankState.LEASED


def test_a_rank_that_was_judged_silent_cannot_renew(training: Training) -> None:
    (lease,) = training.gang(training.job(), duration=RUN_OUT)
    assert training.end_overdue(lease, RankOutcome.SILENT)
    assert training.renew(lease) is None
    assert not training.end(lease, RankOutcome.DONE)
    assert training.rank(lease).outcome == RankOutcome.SILENT


def test_a_renewal_under_way_saves_the_rank(training: Training) -> None:
    (lease,) = training.gang(training.job(), duration=RUN_OUT)
    with ThreadPoolExecutor(1) as pool, training.sessions.begin() as session:
        assert ranks.renew(session, lease, duration=LEASE, phase="training", progress=True)
        overdue = pool.submit(training.end_overdue, lease, RankOutcome.SILENT)
        wait_until(lambda: training.waiting() == 1)
        session.commit()
        assert overdue.result(10) is False


def test_a_judgement_under_way_ends_the_rank_before_it_renews(training: Training) -> None:
    (lease,) = training.gang(training.job(), duration=RUN_OUT)
    with ThreadPoolExecutor(1) as pool, training.sessions.begin() as session:
        assert ranks.end_overdue(session, lease.run_id, lease.rank, RankOutcome.SILENT)
        renewal = pool.submit(training.renew, lease)
        wait_until(lambda: training.waiting() == 1)
        session.commit()
        assert renewal.result(10) is None


def test_a_rank_that_has_claimed_is_not_absent(training: Training) -> None:
    (lease,) = training.gang(training.job())
    assert not training.end_overdue(lease, RankOutcome.ABSENT)


# TaskState.


def test_a_rank_ends_once(training: Training) -> None:
    (lease,) = training.gang(training.job())
    assert training.end(lease, RankOutcome.CRASHED, exit_code=1, error="a\0b")
    assert not training.end(lease, RankOutcome.DONE)
    rank = training.rank(lease)
    assert (rank.outcome, rank.exit_code, rank.error) == (RankOutcome.CRASHED, 1, "a\ufffdb")


@pytest.mark.parametrize("error", ["half a pair: \ud83d", "nothing: \0", "x" * 100_000])
def test_whatever_a_rank_says_at_its_end_can_be_stored(training: Training, error: str) -> None:
    (lease,) = training.gang(training.job())
    assert training.end(lease, RankOutcome.FAULT, error_code="bad", error=error)
    assert len(training.rank(lease).error or "") <= 8_000


Writer = Callable[[Session, RankLease, int], object]

WRITERS: dict[str, Writer] = {
    "record_progress": lambda s, lease, _: ranks.record_progress(s, lease, RunProgress(step=9)),
    "choose_port": lambda s, lease, _: ranks.choose_port(s, lease, 1),
    "add_part": lambda s, lease, _: checkpoints.add_part(s, lease, step=9, files=[]),
    "complete": lambda s, lease, _: checkpoints.complete(
        s,
        lease,
        step=9,
        metric=None,
        best=False,
        manifest_key="k",
        manifest_sha256="s",
        size=1,
    ),
    "add_points": lambda s, lease, _: telemetry.add_points(s, lease, [(9, {"loss": 9.0})]),
    "mark_damaged": lambda s, lease, known: checkpoints.mark_damaged(s, lease, known, reason="x"),
    "mark_deleted": lambda s, lease, known: checkpoints.mark_deleted(s, lease, [known]),
    "succeed": lambda s, lease, _: runs.succeed(s, lease, output={"rows": 1}),
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("stale", ["its run was lost", "its rank ended", "its job succeeded"])
def test_a_stale_rank_changes_nothing(training: Training, name: str, stale: str) -> None:
    job_id = training.job()
    (lease,) = training.gang(job_id)
    known = training.checkpoint(lease, 5)
    if stale == "its run was lost":
        training.lose(lease)
        training.gang(job_id)
    elif stale == "its rank ended":
        training.end(lease, RankOutcome.CRASHED)
    else:
        training.succeed(lease)
    before = _everything(training, job_id)
    with pytest.raises(LeaseLost), training.sessions.begin() as session:
        WRITERS[name](session, lease, known)
    assert _everything(training, job_id) == before


def test_a_stale_rank_cannot_end_renew_or_be_judged_again(training: Training) -> None:
    job_id = training.job()
    (lease,) = training.gang(job_id)
    training.lose(lease)
    training.gang(job_id)
    before = _everything(training, job_id)
    assert not training.end(lease, RankOutcome.DONE)
    assert training.renew(lease) is None
    assert not training.conclude(lease.run_id, LOST)
    assert not training.stop(lease.run_id, "now")
    assert _everything(training, job_id) == before


def test_a_writer_that_meets_the_end_of_its_run_comes_too_late(training: Training) -> None:
    (lease,) = training.gang(training.job())
    training.end(lease, RankOutcome.ABORTED)
    other = training.gang(training.job())[0]
    with ThreadPoolExecutor(1) as pool, training.sessions.begin() as session:
        assert runs.conclude(
            session, other.run_id, LOST, most_faults=MOST_FAULTS, most_errors=MOST_ERRORS
        )
        late = pool.submit(training.checkpoint, other, 9)
        wait_until(lambda: training.waiting() == 1)
        session.commit()
        with pytest.raises(LeaseLost):
            late.result(10)
    assert training.newest(other.job_id) is None


def test_a_log_keeps_what_was_written_even_by_a_rank_that_is_over(training: Training) -> None:
    (lease,) = training.gang(training.job())
    training.lose(lease)
    with training.sessions.begin() as session:
        telemetry.add_log_lines(session, lease, ["last words", "with \0", "y" * 9_000])
    with training.sessions.begin() as session:
        lines = session.scalars(sa.select(LogLine.text).where(LogLine.job_id == lease.job_id)).all()
    assert lines == ["last words", "with \ufffd", "y" * 4_000]


def test_a_resumed_run_writes_over_what_it_does_again(training: Training) -> None:
    job_id = training.job()
    (first,) = training.gang(job_id)
    training.add_points(first, {1: 3.0, 2: 2.0})
    training.lose(first)
    (second,) = training.gang(job_id)
    training.add_points(second, {2: 2.5})
    with training.sessions.begin() as session:
        query = sa.select(Point.step, Point.value, Point.run_number).where(Point.job_id == job_id)
        assert sorted(map(tuple, session.execute(query))) == [(1, 3.0, 1), (2, 2.5, 2)]


def test_an_evaluation_is_an_event_as_well_and_may_be_no_number(training: Training) -> None:
    (lease,) = training.gang(training.job())
    values = {"loss": 1.0, "validation/loss": float("nan"), "validation/accuracy": 0.5}
    with training.sessions.begin() as session:
        telemetry.add_points(session, lease, [(3, values)])
    assert training.told(lease.job_id, "evaluation") == [
        {"run": 1, "step": 3, "values": {"loss": None, "accuracy": 0.5}}
    ]


def test_success_ends_run_ranks_and_job_and_frees_the_hosts(training: Training) -> None:
    gang = training.hosts(2)
    job_id = training.job(machines=2)
    lease, _ = training.claimed(training.formed(job_id, gang))
    training.succeed(lease)
    job = training.ledger.job(job_id)
    assert (job.state, job.output) == (JobState.SUCCEEDED, {"rows": 1})
    assert training.run(lease.run_id).state is RunState.SUCCEEDED
    assert {rank.outcome for rank in training.ranks(lease.run_id)} == {RankOutcome.DONE}
    assert training.reserved(gang) == {None}


@pytest.mark.parametrize("state", [JobState.PAUSED, JobState.CANCELLING])
def test_a_result_that_comes_after_a_pause_or_cancel_is_thrown_away(
    training: Training, state: JobState
) -> None:
    (lease,) = training.gang(training.job())
    training.ledger.set(lease.job_id, state=state)
    with pytest.raises(LeaseLost, match="no longer running"):
        training.succeed(lease)
    assert training.run(lease.run_id).state is RunState.RUNNING
    assert training.rank(lease).state is RankState.LEASED


def test_a_host_that_is_started_anew_and_a_success_do_not_block_each_other(
    training: Training,
) -> None:
    """Both need the host and its rank."""
    host = training.host()
    (lease,) = training.claimed(training.formed(training.job(), [host]))
    with ThreadPoolExecutor(2) as pool, training.sessions.begin() as session:
        session.execute(sa.select(Host.name).where(Host.name == host.name).with_for_update())
        arrival = pool.submit(training.host, host.name)
        wait_until(lambda: training.waiting() == 1)
        success = pool.submit(training.succeed, lease)
        wait_until(lambda: training.waiting() == 2)
        session.commit()
        arrival.result(10)
        success.result(10)
    assert training.ledger.job(lease.job_id).state is JobState.SUCCEEDED


def _everything(training: Training, job_id: str) -> list[Any]:
    """All that is on record of a job."""
    own = [run.id for run in training.runs_of(job_id)]
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
