"""What turns of control do for training: gangs are formed, told, judged, stopped, formed again."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from jobs.decisions.run_verdict import Outcome
from jobs.ledger import controls, hosts, runs, transitions
from jobs.ledger.hosts import Presented
from jobs.ledger.ranks import RankLease
from jobs.queries import jobs as job_queries
from jobs.states import JobState, RankState, RunState
from jobs.tables import Host, Project, Rank, Run
from tests.jobs.ledger.building import OTHER, PROJECT, Ledger
from tests.jobs.ledger.training import Training
from tests.support.servers import Server
from tests.workers.control.conftest import Desk
from workers.app import host_queue
from workers.control import gangs, reconciler

TURNS = 4
"""So many turns bring whatever can move to rest."""


class Yard:
    """A desk, and hosts whose ranks are moved by the test."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.training = Training(desk.ledger)
        self.incarnations: dict[str, str] = {}

    def hosts(self, *names: str, **fields: Any) -> list[Presented]:
        made = [self.training.host(name, **fields) for name in names]
        self.incarnations |= {host.name: host.incarnation for host in made}
        return made

    def turn(self, times: int = 1) -> None:
        for _ in range(times):
            self.desk.turn()

    def messages(self, host: str) -> list[list[Any]]:
        """Arguments of the messages that wait in a host's queue."""
        return [_arguments(message) for message in self.desk.messages(host_queue(host))]

    def take(self, job_id: str) -> list[RankLease]:
        """Let every host receive its message, and claim its rank."""
        run = self.live(job_id)
        for rank in self.training.ranks(run.id):
            message: Any = self.desk.redis.rpop(host_queue(rank.host))
            assert message is not None, rank.host
            assert _arguments(message) == [run.id, rank.rank, self.incarnations[rank.host]]
        return self.training.claimed(run.id)

    def started(self, job_id: str) -> list[RankLease]:
        """A turn that forms the job's gang, whose ranks all begin."""
        self.turn()
        return self.take(job_id)

    def stop_all(self, held: list[RankLease], outcome: Outcome = Outcome.STOPPED) -> None:
        for each in held:
            self.training.end(each, outcome)
        self.turn()

    def succeed(self, held: list[RankLease]) -> None:
        with self.training.sessions.begin() as session:
            runs.succeed(session, held[0], output={"rows": 1})

    def live(self, job_id: str) -> Run:
        run = self.training.live_run(job_id)
        assert run is not None, self.reason(job_id)
        return run

    def states(self, job_id: str) -> list[RunState]:
        return [run.state for run in self.training.runs_of(job_id)]

    def state(self, job_id: str) -> JobState:
        return self.training.ledger.job(job_id).state

    def reason(self, job_id: str) -> str:
        """Why the job does not move; empty if it does."""
        with self.training.sessions.begin() as session:
            return job_queries.get(session, job_id, project_id=PROJECT).waiting_reason or ""

    def do(self, operation: Any, job_id: str) -> None:
        with self.training.sessions.begin() as session:
            operation(session, job_id, project_id=PROJECT)

    def make_older(self, table: Any, column: str, seconds: float) -> None:
        with self.training.sessions.begin() as session:
            older = getattr(table, column) - timedelta(seconds=seconds)
            session.execute(sa.update(table).values({column: older}))

    def skip_backoff(self, job_id: str) -> None:
        self.training.ledger.set(job_id, not_before=None)


@pytest.fixture
def yard(ledger: Ledger, valkey: Server) -> Iterator[Yard]:
    valkey.start()
    desk = Desk(ledger, valkey.url)
    desk.redis.flushall()
    yard = Yard(desk)
    yield yard
    desk.redis.close()
    yard.training.clear()
    with ledger.sessions.begin() as session:
        session.execute(sa.update(Project).values(weight=1))


def test_a_gang_is_formed_and_each_host_told_in_its_own_queue(yard: Yard) -> None:
    made = yard.hosts("a", "b", "c")
    job_id = yard.training.job(machines=2)
    yard.turn()
    run = yard.live(job_id)
    assert yard.messages("a") == [[run.id, 0, made[0].incarnation]]
    assert yard.messages("b") == [[run.id, 1, made[1].incarnation]]
    assert yard.messages("c") == []
    assert yard.reason(job_id) == "waiting for 2 of its hosts to begin"


def test_a_gang_that_was_told_is_not_told_again_at_once(yard: Yard) -> None:
    yard.hosts("a")
    yard.training.job()
    yard.turn(TURNS)
    assert len(yard.messages("a")) == 1


def test_a_message_that_was_lost_is_sent_again(yard: Yard) -> None:
    yard.hosts("a", "b")
    job_id = yard.training.job(machines=2)
    yard.turn()
    yard.desk.redis.flushall()
    yard.turn()
    assert yard.messages("a") == yard.messages("b") == []
    yard.make_older(Rank, "dispatched_at", yard.desk.settings.redispatch_seconds)
    yard.turn()
    assert len(yard.messages("a")) == len(yard.messages("b")) == 1
    yard.take(job_id)
    yard.make_older(Rank, "dispatched_at", yard.desk.settings.redispatch_seconds)
    yard.turn()
    assert yard.messages("a") == yard.messages("b") == []


def test_a_gang_that_could_not_be_told_is_told_when_the_broker_is_back(
    yard: Yard, valkey: Server
) -> None:
    yard.hosts("a")
    job_id = yard.training.job()
    valkey.kill()
    try:
        yard.turn()
        assert yard.reason(job_id).startswith("the broker does not answer")
    finally:
        valkey.start()
    yard.make_older(Rank, "dispatched_at", yard.desk.settings.redispatch_seconds)
    yard.turn()
    assert len(yard.messages("a")) == 1


def test_a_job_that_runs_gives_no_reason(yard: Yard) -> None:
    yard.hosts("a")
    job_id = yard.training.job()
    yard.started(job_id)
    yard.turn()
    assert yard.reason(job_id) == ""


def test_an_evaluation_takes_one_host(yard: Yard) -> None:
    yard.hosts("a", "b")
    job_id = yard.training.job(kind="evaluate", model="/model")
    (held,) = yard.started(job_id)
    assert held.spec.kind == "evaluate"


def test_two_jobs_of_two_machines_on_three_hosts_get_through_one_after_the_other(
    yard: Yard,
) -> None:
    yard.hosts("a", "b", "c")
    first, second = yard.training.job(machines=2), yard.training.job(machines=2)
    held = yard.started(first)
    yard.turn(TURNS)
    assert yard.training.live_run(second) is None
    assert yard.reason(second) == "it needs 2 idle hosts of pool 'train'; 1 of 3 are"
    yard.succeed(held)
    yard.succeed(yard.started(second))
    assert yard.state(first) is yard.state(second) is JobState.SUCCEEDED


def test_small_jobs_do_not_starve_a_big_one(yard: Yard) -> None:
    yard.hosts("a", "b")
    small = yard.training.job()
    held = yard.started(small)
    big = yard.training.job(machines=2)
    late = yard.training.job()
    yard.turn(TURNS)
    assert yard.training.live_run(late) is None
    assert yard.reason(late) == "1 jobs of pool 'train' go first; 1 of 2 hosts are idle"
    yard.succeed(held)
    yard.turn()
    assert yard.live(big).machines == 2


def test_an_elastic_job_takes_what_is_there(yard: Yard) -> None:
    yard.hosts("a", "b", "c")
    yard.started(yard.training.job())
    job_id = yard.training.job(machines="2..4")
    yard.turn()
    assert yard.live(job_id).machines == 2


def test_a_job_that_asks_for_more_hosts_than_there_are_says_so_and_blocks_nobody(
    yard: Yard,
) -> None:
    yard.hosts("a", "b")
    huge, small = yard.training.job(machines=3), yard.training.job()
    yard.turn()
    assert yard.live(small).machines == 1
    assert yard.reason(huge) == (
        "it needs 3 hosts of pool 'train', which has 2: "
        "start more, or submit it with fewer machines"
    )


def test_a_job_of_a_pool_without_hosts_says_what_to_start(yard: Yard) -> None:
    yard.hosts("a")
    job_id = yard.training.job(pool="elsewhere")
    yard.turn()
    assert yard.reason(job_id) == (
        "no training host of pool 'elsewhere' is alive; "
        "start one: `python -m workers.processes host`"
    )


def test_a_host_that_does_not_beat_is_not_taken(yard: Yard) -> None:
    yard.hosts("a")
    yard.make_older(Host, "beat_at", 60)
    job_id = yard.training.job()
    yard.turn()
    assert yard.training.live_run(job_id) is None
    assert yard.reason(job_id).startswith("no training host of pool 'train' is alive")


def test_projects_share_hosts_by_what_they_hold(yard: Yard) -> None:
    yard.hosts("a", "b")
    yard.started(yard.training.job())
    ours = yard.training.job()
    theirs = yard.training.job(project=OTHER)
    yard.turn()
    assert yard.training.live_run(ours) is None
    assert yard.live(theirs)


# Runs that are lost.


def test_a_silent_rank_ends_the_run_and_a_new_one_forms_with_a_higher_number(yard: Yard) -> None:
    _, silent = yard.hosts("a", "b")
    job_id = yard.training.job(machines=2)
    first, second = yard.started(job_id)
    yard.training.checkpoint(first, 40)
    yard.training.run_out(first.run_id, 1)
    yard.turn()
    assert yard.training.rank(second).outcome == Outcome.SILENT
    assert (yard.live(job_id).stop, yard.live(job_id).id) == ("now", first.run_id)
    yard.training.end(first, Outcome.ENDED)
    yard.turn()
    assert yard.training.live_run(job_id) is None  # it takes no new rank before it beats again
    yard.training.beat(silent)
    yard.turn()
    lost, again = yard.training.runs_of(job_id)
    assert (lost.state, lost.failing_rank, lost.reason) == (
        RunState.LOST,
        1,
        "rank 1 on host b went silent",
    )
    assert (again.number, again.state, again.step) == (2, RunState.FORMING, 40)
    assert [held.fence for held in yard.take(job_id)] == [2, 2]


def test_a_host_that_is_gone_is_replaced_by_another(yard: Yard) -> None:
    yard.hosts("a", "b", "c")
    job_id = yard.training.job(machines=2)
    first, second = yard.started(job_id)
    with yard.training.sessions.begin() as session:
        hosts.leave(session, name="a", incarnation=yard.incarnations["a"])
    yard.training.run_out(first.run_id, 0)
    yard.turn()
    yard.training.end(second, Outcome.ENDED)
    yard.turn()
    assert [rank.host for rank in yard.training.ranks(yard.live(job_id).id)] == ["b", "c"]


def test_a_rank_that_does_not_come_ends_the_run(yard: Yard) -> None:
    yard.hosts("a", "b")
    job_id = yard.training.job(machines=2)
    yard.turn()
    run = yard.live(job_id)
    held = yard.training.claim(run.id, 0, yard.incarnations["a"])
    assert held is not None
    yard.make_older(Run, "created_at", yard.desk.settings.train_forming_seconds + 1)
    yard.turn()
    yard.training.end(held, Outcome.ENDED)
    yard.turn()
    assert yard.training.run(run.id).reason == "rank 1 on host b did not begin in time"


def test_the_rank_that_crashed_is_named_with_the_end_of_its_log(yard: Yard) -> None:
    yard.hosts("a", "b")
    job_id = yard.training.job(machines=2)
    victim, culprit = yard.started(job_id)
    yard.training.end(victim, Outcome.CRASHED, exit_code=1, error="Connection closed by peer")
    yard.training.end(culprit, Outcome.CRASHED, exit_code=1, error="ValueError: odd data")
    yard.turn(TURNS)
    reason = "rank 1 on host b crashed with exit code 1; its last output: ValueError: odd data"
    assert yard.training.run(culprit.run_id).reason == reason
    assert yard.training.ledger.job(job_id).errors == 1


def test_a_job_waits_after_its_second_lost_run_and_says_so(yard: Yard) -> None:
    yard.hosts("a")
    job_id = yard.training.job()
    for _ in range(2):
        (held,) = yard.started(job_id)
        yard.training.end(held, Outcome.CRASHED, exit_code=-9)
        yard.turn(2)
    assert yard.states(job_id) == [RunState.LOST] * 2
    assert "lost and is taken up again in 2 s: rank 0 on host a was killed" in yard.reason(job_id)
    yard.skip_backoff(job_id)
    yard.started(job_id)


def test_a_job_whose_runs_crash_again_and_again_fails_with_the_reason(yard: Yard) -> None:
    yard.hosts("a")
    job_id = yard.training.job()
    for _ in range(yard.desk.settings.train_errors + 1):
        (held,) = yard.started(job_id)
        yard.training.end(held, Outcome.CRASHED, exit_code=1, error="ValueError: odd data")
        yard.turn(2)
        yard.skip_backoff(job_id)
    job = yard.training.ledger.job(job_id)
    assert (job.state, job.error_code) == (JobState.FAILED, "run_crashed")
    assert "ValueError: odd data" in (job.error_message or "")
    yard.turn()
    assert yard.training.live_run(job_id) is None


def test_a_job_at_fault_fails_in_its_own_words(yard: Yard) -> None:
    yard.hosts("a")
    job_id = yard.training.job()
    (held,) = yard.started(job_id)
    yard.training.end(
        held, Outcome.FAULT, exit_code=65, error_code="bad_base", error="no tokenizer"
    )
    yard.turn(2)
    job = yard.training.ledger.job(job_id)
    assert (job.state, job.error_code, job.error_message) == (
        JobState.FAILED,
        "bad_base",
        "no tokenizer",
    )


def test_a_fresh_leader_leaves_ranks_half_a_lease_to_renew(yard: Yard) -> None:
    yard.hosts("a")
    (held,) = yard.started(yard.training.job())
    yard.training.run_out(held.run_id, 0)
    yard.desk.control.turn(led_for=yard.desk.settings.lease_seconds / 2)
    assert yard.training.rank(held).state is RankState.LEASED
    yard.turn()
    assert yard.training.rank(held).outcome == Outcome.SILENT


def test_a_run_that_was_asked_to_stop_while_it_was_judged_is_preempted_and_not_lost(
    yard: Yard,
) -> None:
    """The run was looked at before it was asked, its ranks after they had stopped."""
    yard.hosts("a")
    job_id = yard.training.job()
    (held,) = yard.started(job_id)
    before = yard.live(job_id)
    yard.do(controls.pause, job_id)
    gangs.stop_runs(yard.training.sessions)
    yard.training.end(held, Outcome.STOPPED)
    gangs._judge(yard.training.sessions, before, [], settings=yard.desk.settings)
    assert yard.states(job_id) == [RunState.PREEMPTED]


def test_control_looks_at_training_from_the_wish_for_hosts_until_they_are_free(yard: Yard) -> None:
    sessions = yard.training.sessions
    yard.hosts("a")
    job_id = yard.training.accept()
    assert not reconciler.look(sessions).training  # it is to be planned first
    yard.training.plan(job_id)
    assert reconciler.look(sessions).training
    held = yard.started(job_id)
    with sessions.begin() as session:
        transitions.fail(
            session, job_id, code="model_changed", message="its model is another one now"
        )
    assert reconciler.look(sessions).training  # its rank still runs
    yard.turn()
    yard.stop_all(held)
    assert not reconciler.look(sessions).training
    cancelled = yard.training.job()
    yard.do(controls.cancel, cancelled)
    assert reconciler.look(sessions).training
    yard.turn()
    assert not reconciler.look(sessions).training


# Making way.


def test_a_higher_priority_takes_the_hosts_of_a_lower_one_which_goes_on_later(yard: Yard) -> None:
    yard.hosts("a", "b")
    low = yard.training.job(machines=2)
    held = yard.started(low)
    yard.training.checkpoint(held[0], 7)
    high = yard.training.job(priority=5)
    yard.turn()
    run = yard.live(low)
    assert (run.stop, run.stop_reason) == (
        "checkpoint",
        f"its hosts are wanted by {high}, which has a higher priority",
    )
    assert yard.reason(low) == f"its run ends and will be taken up again: {run.stop_reason}"
    yard.stop_all(held)
    assert yard.states(low) == [RunState.PREEMPTED]
    urgent = yard.take(high)
    yard.turn(TURNS)
    assert yard.training.live_run(low) is None  # it needs both hosts
    yard.succeed(urgent)
    yard.turn()
    assert (yard.live(low).number, yard.live(low).step) == (2, 7)
    assert yard.training.ledger.job(low).faults == 0


def test_the_same_priority_makes_nobody_stop(yard: Yard) -> None:
    yard.hosts("a")
    running = yard.training.job(priority=5)
    yard.started(running)
    yard.training.job(priority=5)
    yard.turn(TURNS)
    assert yard.live(running).stop is None


def test_nobody_makes_way_where_that_would_not_be_enough(yard: Yard) -> None:
    yard.hosts("a", "b")
    low, middle = yard.training.job(), yard.training.job(priority=5)
    yard.turn()
    for job_id in (low, middle):
        yard.take(job_id)
    yard.training.job(priority=5, machines=2)
    yard.turn(TURNS)
    assert yard.live(low).stop is yard.live(middle).stop is None


def test_only_as_many_stop_as_are_needed(yard: Yard) -> None:
    yard.hosts("a", "b", "c")
    running = [yard.training.job() for _ in range(3)]
    yard.turn()
    for job_id in running:
        yard.take(job_id)
    yard.training.job(priority=5)
    yard.turn(TURNS)
    assert [bool(yard.live(job_id).stop) for job_id in running].count(True) == 1


def test_a_paused_job_makes_a_checkpoint_and_frees_its_hosts(yard: Yard) -> None:
    yard.hosts("a")
    job_id = yard.training.job()
    held = yard.started(job_id)
    yard.do(controls.pause, job_id)
    yard.turn()
    assert yard.live(job_id).stop == "checkpoint"
    assert yard.reason(job_id) == "its run makes a checkpoint and ends: the job was paused"
    yard.stop_all(held)
    assert (yard.state(job_id), yard.states(job_id)) == (JobState.PAUSED, [RunState.PREEMPTED])
    assert "nightshift jobs resume" in yard.reason(job_id)
    yard.do(controls.resume, job_id)
    yard.turn()
    assert yard.live(job_id).number == 2


def test_a_cancelled_job_ends_its_ranks_at_once_and_then_itself(yard: Yard) -> None:
    yard.hosts("a")
    job_id = yard.training.job()
    held = yard.started(job_id)
    yard.do(controls.pause, job_id)
    yard.turn()
    yard.do(controls.cancel, job_id)
    yard.turn()
    assert yard.live(job_id).stop == "now"
    assert yard.reason(job_id) == "waiting for its ranks to end"
    yard.stop_all(held, Outcome.ENDED)
    assert yard.state(job_id) is JobState.CANCELLED


def test_a_job_that_is_cancelled_before_its_gang_has_begun_ends_at_once(yard: Yard) -> None:
    yard.hosts("a", "b")
    job_id = yard.training.job(machines=2)
    yard.turn()
    yard.do(controls.cancel, job_id)
    yard.turn(2)
    assert yard.state(job_id) is JobState.CANCELLED
    assert yard.training.reserved(yard.hosts("a", "b")) == {None}


def test_a_job_whose_deadline_passes_ends_its_ranks(yard: Yard) -> None:
    yard.hosts("a")
    job_id = yard.training.job(deadline_seconds=1000)
    held = yard.started(job_id)
    yard.training.ledger.set(job_id, expires_at=sa.func.now() - timedelta(seconds=1))
    yard.turn()
    assert (yard.state(job_id), yard.live(job_id).stop) == (JobState.EXPIRED, "now")
    yard.stop_all(held, Outcome.ENDED)
    assert yard.training.live_run(job_id) is None


def test_a_host_that_goes_away_gives_its_rank_back_after_a_checkpoint(yard: Yard) -> None:
    (host,) = yard.hosts("a")
    job_id = yard.training.job()
    held = yard.started(job_id)
    yard.hosts("b")
    with yard.training.sessions.begin() as session:
        hosts.drain(session, name="a", incarnation=host.incarnation)
    yard.turn()
    run = yard.live(job_id)
    assert (run.stop, run.stop_reason) == ("checkpoint", "host a is going away")
    yard.stop_all(held)
    assert [rank.host for rank in yard.training.ranks(yard.live(job_id).id)] == ["b"]


# Beside bulk work.


def test_a_host_that_yields_stops_while_its_bulk_pool_has_work(yard: Yard) -> None:
    yard.hosts("a", shares_pool="gpu", sharing="yield")
    job_id = yard.training.job()
    held = yard.started(job_id)
    bulk = yard.training.ledger.running(1, pool="gpu")
    yard.turn()
    assert yard.live(job_id).stop == "checkpoint"
    yard.stop_all(held)
    yard.turn(TURNS)
    assert yard.training.live_run(job_id) is None
    assert yard.reason(job_id) == (
        "1 hosts of pool 'train' yield to bulk work; it begins when that is done"
    )
    yard.training.ledger.commit_all(bulk)
    yard.turn()
    assert yard.live(job_id).number == 2


def test_work_of_another_pool_makes_no_host_yield(yard: Yard) -> None:
    yard.hosts("a", shares_pool="gpu", sharing="yield")
    yard.training.ledger.running(1, pool="cpu")
    job_id = yard.training.job()
    yard.turn(TURNS)
    assert yard.live(job_id).stop is None


@pytest.mark.parametrize("sharing", ["beside", None])
def test_a_host_that_trains_beside_bulk_work_goes_on(yard: Yard, sharing: str | None) -> None:
    yard.hosts("a", shares_pool="gpu" if sharing else None, sharing=sharing)
    yard.training.ledger.running(1, pool="gpu")
    job_id = yard.training.job()
    yard.turn(TURNS)
    assert yard.live(job_id).stop is None


def test_a_host_that_refuses_is_as_good_as_not_there_and_the_job_says_so(yard: Yard) -> None:
    yard.hosts("a", shares_pool="gpu", sharing="refuse")
    yard.hosts("b")
    refused, small = yard.training.job(machines=2), yard.training.job()
    yard.turn(TURNS)
    assert yard.live(small)
    assert yard.reason(refused).startswith(
        "it needs 2 hosts of pool 'train', which has 2, 1 of which refuse to train"
    )


def test_a_host_that_is_silent_for_long_is_forgotten_with_its_queue(yard: Yard) -> None:
    yard.hosts("a")
    yard.training.job()
    yard.turn()
    yard.training.clear()
    yard.hosts("a")
    yard.make_older(Host, "beat_at", 2 * gangs.FORGET_SECONDS)
    assert gangs.forget_hosts(yard.training.sessions, yard.desk.publisher) == 1
    assert yard.messages("a") == []


def _arguments(message: bytes) -> list[Any]:
    arguments, _, _ = json.loads(base64.b64decode(json.loads(message)["body"]))
    return list(arguments)
