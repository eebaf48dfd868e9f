"""Turns of control end the run of a rank that crashed or is silent, and form another."""

from __future__ import annotations

from jobs.decisions.run_verdict import RankOutcome
from jobs.ledger import controls
from jobs.ledger.ranks import RankLease
from jobs.states import JobState, RankState, RunState
from jobs.tables import Run
from tests.workers.control.cluster import TURNS, Cluster
from workers.control import gangs


def silenced(cluster: Cluster, job_id: str, *, step: int = 40) -> tuple[RankLease, RankLease]:
    """The ranks on hosts a and b; b is silent since a checkpoint at this step."""
    cluster.hosts("a", "b")
    alive, silent = cluster.started(job_id)
    cluster.training.checkpoint(alive, step)
    cluster.training.run_out(silent.run_id, silent.rank)
    cluster.turn()
    return alive, silent


def test_a_silent_rank_ends_and_its_run_stops_at_once(cluster: Cluster) -> None:
    job_id = cluster.training.job(machines=2)
    _, silent = silenced(cluster, job_id)
    assert cluster.training.rank(silent).outcome == RankOutcome.SILENT
    assert (cluster.live(job_id).stop, cluster.live(job_id).id) == ("now", silent.run_id)


def test_the_run_of_a_silent_rank_is_lost_with_the_reason(cluster: Cluster) -> None:
    alive, silent = silenced(cluster, cluster.training.job(machines=2))
    cluster.stop_all([alive], RankOutcome.ABORTED)
    run = cluster.training.run(silent.run_id)
    assert (run.state, run.failing_rank) == (RunState.LOST, 1)
    assert run.reason == "rank 1 on host b went silent"


def test_a_silent_host_gets_no_rank_before_its_next_heartbeat(cluster: Cluster) -> None:
    job_id = cluster.training.job(machines=2)
    alive, _ = silenced(cluster, job_id)
    cluster.stop_all([alive], RankOutcome.ABORTED)
    cluster.turn()
    assert cluster.training.live_run(job_id) is None


def test_the_next_run_goes_on_at_the_checkpoint_with_a_higher_fence(cluster: Cluster) -> None:
    job_id = cluster.training.job(machines=2)
    alive, _ = silenced(cluster, job_id, step=40)
    cluster.stop_all([alive], RankOutcome.ABORTED)
    cluster.hosts("b")
    cluster.turn()
    run = cluster.live(job_id)
    assert (run.number, run.state, run.step) == (2, RunState.FORMING, 40)
    assert [lease.fence for lease in cluster.take(job_id)] == [2, 2]


def test_a_host_that_left_is_replaced_by_another(cluster: Cluster) -> None:
    cluster.hosts("a", "b", "c")
    job_id = cluster.training.job(machines=2)
    first, second = cluster.started(job_id)
    cluster.leave("a")
    cluster.training.run_out(first.run_id, 0)
    cluster.turn()
    cluster.stop_all([second], RankOutcome.ABORTED)
    ranks = cluster.training.ranks(cluster.live(job_id).id)
    assert [rank.host for rank in ranks] == ["b", "c"]


def test_a_rank_that_does_not_begin_in_time_ends_the_run(cluster: Cluster) -> None:
    cluster.hosts("a", "b")
    job_id = cluster.training.job(machines=2)
    cluster.turn()
    run = cluster.live(job_id)
    lease = cluster.training.claim(run.id, 0, cluster.incarnations["a"])
    assert lease is not None
    cluster.make_older(Run, "created_at", cluster.plane.settings.train_forming_seconds + 1)
    cluster.turn()
    cluster.stop_all([lease], RankOutcome.ABORTED)
    assert cluster.training.run(run.id).reason == "rank 1 on host b did not begin in time"


def test_of_two_crashed_ranks_the_one_with_an_error_of_its_own_is_named(cluster: Cluster) -> None:
    cluster.hosts("a", "b")
    victim, culprit = cluster.started(cluster.training.job(machines=2))
    cluster.crash(victim, error="Connection closed by peer")
    cluster.crash(culprit, error="ValueError: odd data")
    cluster.turn(TURNS)
    assert cluster.training.run(culprit.run_id).reason == (
        "rank 1 on host b crashed with exit code 1; its last output: ValueError: odd data"
    )


def test_a_run_with_two_crashed_ranks_is_one_error(cluster: Cluster) -> None:
    cluster.hosts("a", "b")
    job_id = cluster.training.job(machines=2)
    for lease in cluster.started(job_id):
        cluster.crash(lease)
    cluster.turn(TURNS)
    assert cluster.training.ledger.job(job_id).errors == 1


def test_a_job_waits_after_its_second_lost_run_and_says_why(cluster: Cluster) -> None:
    cluster.hosts("a")
    job_id = cluster.training.job()
    for _ in range(2):
        cluster.lose_a_run(job_id, exit_code=-9)
    assert cluster.states(job_id) == [RunState.LOST] * 2
    expected = "lost and is taken up again in 2 s: rank 0 on host a was killed"
    assert expected in cluster.reason(job_id)


def test_a_job_runs_again_when_its_wait_is_over(cluster: Cluster) -> None:
    cluster.hosts("a")
    job_id = cluster.training.job()
    for _ in range(2):
        cluster.lose_a_run(job_id, exit_code=-9)
    cluster.skip_backoff(job_id)
    assert len(cluster.started(job_id)) == 1


def test_a_job_whose_every_run_crashes_fails_with_the_reason(cluster: Cluster) -> None:
    cluster.hosts("a")
    job_id = cluster.training.job()
    for _ in range(cluster.plane.settings.train_errors + 1):
        cluster.lose_a_run(job_id, error="ValueError: odd data")
        cluster.skip_backoff(job_id)
    job = cluster.training.ledger.job(job_id)
    assert (job.state, job.error_code) == (JobState.FAILED, "run_crashed")
    assert "ValueError: odd data" in (job.error_message or "")
    cluster.turn()
    assert cluster.training.live_run(job_id) is None


def test_a_fault_of_the_job_fails_it_with_its_own_code_and_message(cluster: Cluster) -> None:
    cluster.hosts("a")
    job_id = cluster.training.job()
    (lease,) = cluster.started(job_id)
    cluster.training.end(
        lease, RankOutcome.FAULT, exit_code=65, error_code="bad_base", error="no tokenizer"
    )
    cluster.turn(2)
    job = cluster.training.ledger.job(job_id)
    assert (job.state, job.error_code) == (JobState.FAILED, "bad_base")
    assert job.error_message == "no tokenizer"


def test_a_new_leader_leaves_ranks_half_a_lease_to_renew(cluster: Cluster) -> None:
    cluster.hosts("a")
    (lease,) = cluster.started(cluster.training.job())
    cluster.training.run_out(lease.run_id, 0)
    cluster.plane.turns.turn(led_for=cluster.plane.settings.lease_seconds / 2)
    assert cluster.training.rank(lease).state is RankState.LEASED
    cluster.turn()
    assert cluster.training.rank(lease).outcome == RankOutcome.SILENT


def test_a_run_that_is_asked_to_stop_during_the_verdict_is_preempted(cluster: Cluster) -> None:
    """Control has read the run before the request, and its ranks after they stopped."""
    cluster.hosts("a")
    job_id = cluster.training.job()
    (lease,) = cluster.started(job_id)
    before = cluster.live(job_id)
    cluster.do(controls.pause, job_id)
    gangs.stop_runs(cluster.training.sessions)
    cluster.training.end(lease, RankOutcome.STOPPED)
    gangs._judge(cluster.training.sessions, before, settings=cluster.plane.settings)
    assert cluster.states(job_id) == [RunState.PREEMPTED]
