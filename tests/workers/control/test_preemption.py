"""Turns of control stop runs for a higher priority, a request, a deadline or a draining host."""

from __future__ import annotations

from datetime import timedelta

import sqlalchemy as sa

from jobs.decisions.run_verdict import RankOutcome
from jobs.ledger import controls, hosts
from jobs.ledger.ranks import RankLease
from jobs.states import JobState, RunState
from tests.workers.control.cluster import TURNS, Cluster

# A higher priority.


def outranked(cluster: Cluster) -> tuple[str, str, list[RankLease]]:
    """A job that holds both hosts, one of a higher priority, and the ranks of the first."""
    cluster.hosts("a", "b")
    low = cluster.training.job(machines=2)
    leases = cluster.started(low)
    cluster.training.checkpoint(leases[0], 7)
    high = cluster.training.job(priority=5)
    cluster.turn()
    return low, high, leases


def test_a_higher_priority_lets_a_run_make_a_checkpoint_and_stop(cluster: Cluster) -> None:
    low, high, _ = outranked(cluster)
    run = cluster.live(low)
    assert run.stop == "checkpoint"
    assert run.stop_reason == f"its hosts are wanted by {high}, which has a higher priority"


def test_a_job_that_is_preempted_says_why(cluster: Cluster) -> None:
    low, high, _ = outranked(cluster)
    assert cluster.reason(low) == (
        "its run ends and will be taken up again: "
        f"its hosts are wanted by {high}, which has a higher priority"
    )


def test_a_preempted_run_is_no_fault_of_its_job(cluster: Cluster) -> None:
    low, _, leases = outranked(cluster)
    cluster.stop_all(leases)
    assert cluster.states(low) == [RunState.PREEMPTED]
    assert cluster.training.ledger.job(low).faults == 0


def test_a_preempted_job_waits_until_it_has_all_its_hosts(cluster: Cluster) -> None:
    low, high, leases = outranked(cluster)
    cluster.stop_all(leases)
    cluster.take(high)
    cluster.turn(TURNS)
    assert cluster.training.live_run(low) is None


def test_a_preempted_job_goes_on_at_its_checkpoint(cluster: Cluster) -> None:
    low, high, leases = outranked(cluster)
    cluster.stop_all(leases)
    cluster.succeed(cluster.take(high))
    cluster.turn()
    assert (cluster.live(low).number, cluster.live(low).step) == (2, 7)


def test_an_equal_priority_stops_no_run(cluster: Cluster) -> None:
    cluster.hosts("a")
    running = cluster.training.job(priority=5)
    cluster.started(running)
    cluster.training.job(priority=5)
    cluster.turn(TURNS)
    assert cluster.live(running).stop is None


def test_no_run_stops_where_that_would_not_free_enough_hosts(cluster: Cluster) -> None:
    cluster.hosts("a", "b")
    low, middle = cluster.training.job(), cluster.training.job(priority=5)
    cluster.turn()
    for job_id in (low, middle):
        cluster.take(job_id)
    cluster.training.job(priority=5, machines=2)
    cluster.turn(TURNS)
    assert cluster.live(low).stop is cluster.live(middle).stop is None


def test_no_more_runs_stop_than_are_needed(cluster: Cluster) -> None:
    cluster.hosts("a", "b", "c")
    running = [cluster.training.job() for _ in range(3)]
    cluster.turn()
    for job_id in running:
        cluster.take(job_id)
    cluster.training.job(priority=5)
    cluster.turn(TURNS)
    assert [bool(cluster.live(job_id).stop) for job_id in running].count(True) == 1


# Pause, cancel, deadline.


def paused(cluster: Cluster) -> tuple[str, list[RankLease]]:
    """A running job that was paused, before its ranks have stopped."""
    cluster.hosts("a")
    job_id = cluster.training.job()
    leases = cluster.started(job_id)
    cluster.do(controls.pause, job_id)
    cluster.turn()
    return job_id, leases


def test_the_run_of_a_paused_job_makes_a_checkpoint_and_ends(cluster: Cluster) -> None:
    job_id, _ = paused(cluster)
    assert cluster.live(job_id).stop == "checkpoint"
    assert cluster.reason(job_id) == "its run makes a checkpoint and ends: the job was paused"


def test_a_paused_job_says_how_to_resume_it(cluster: Cluster) -> None:
    job_id, leases = paused(cluster)
    cluster.stop_all(leases)
    assert cluster.state(job_id) is JobState.PAUSED
    assert cluster.states(job_id) == [RunState.PREEMPTED]
    assert "nightshift jobs resume" in cluster.reason(job_id)


def test_a_resumed_job_gets_a_second_run(cluster: Cluster) -> None:
    job_id, leases = paused(cluster)
    cluster.stop_all(leases)
    cluster.do(controls.resume, job_id)
    cluster.turn()
    assert cluster.live(job_id).number == 2


def test_a_cancelled_job_ends_its_ranks_at_once(cluster: Cluster) -> None:
    job_id, _ = paused(cluster)
    cluster.do(controls.cancel, job_id)
    cluster.turn()
    assert cluster.live(job_id).stop == "now"
    assert cluster.reason(job_id) == "its ranks must end first"


def test_a_job_is_cancelled_when_its_ranks_have_ended(cluster: Cluster) -> None:
    job_id, leases = paused(cluster)
    cluster.do(controls.cancel, job_id)
    cluster.turn()
    cluster.stop_all(leases, RankOutcome.ABORTED)
    assert cluster.state(job_id) is JobState.CANCELLED


def test_a_job_that_is_cancelled_before_its_gang_begins_ends_at_once(cluster: Cluster) -> None:
    cluster.hosts("a", "b")
    job_id = cluster.training.job(machines=2)
    cluster.turn()
    cluster.do(controls.cancel, job_id)
    cluster.turn(2)
    assert cluster.state(job_id) is JobState.CANCELLED
    assert cluster.training.reserved(cluster.hosts("a", "b")) == {None}


def test_a_deadline_that_passes_ends_the_ranks(cluster: Cluster) -> None:
    cluster.hosts("a")
    job_id = cluster.training.job(deadline_seconds=1000)
    leases = cluster.started(job_id)
    cluster.training.ledger.set(job_id, expires_at=sa.func.now() - timedelta(seconds=1))
    cluster.turn()
    assert (cluster.state(job_id), cluster.live(job_id).stop) == (JobState.EXPIRED, "now")
    cluster.stop_all(leases, RankOutcome.ABORTED)
    assert cluster.training.live_run(job_id) is None


# Hosts that drain.


def test_a_rank_on_a_draining_host_moves_after_a_checkpoint(cluster: Cluster) -> None:
    cluster.hosts("a")
    job_id = cluster.training.job()
    leases = cluster.started(job_id)
    cluster.hosts("b")
    with cluster.training.sessions.begin() as session:
        hosts.drain(session, name="a", incarnation=cluster.incarnations["a"])
    cluster.turn()
    run = cluster.live(job_id)
    assert (run.stop, run.stop_reason) == ("checkpoint", "host a is going away")
    cluster.stop_all(leases)
    assert [rank.host for rank in cluster.training.ranks(cluster.live(job_id).id)] == ["b"]


def test_a_fresh_leader_concludes_a_run_whose_hosts_have_drained(cluster: Cluster) -> None:
    cluster.hosts("a")
    job_id = cluster.training.job()
    (lease,) = cluster.started(job_id)
    with cluster.training.sessions.begin() as session:
        hosts.drain(session, name="a", incarnation=cluster.incarnations["a"])
    cluster.training.end(lease, RankOutcome.STOPPED)
    cluster.plane.turns.turn(led_for=0)
    assert cluster.states(job_id) == [RunState.PREEMPTED]
