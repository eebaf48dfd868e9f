"""Turns of control form gangs of idle hosts and send each host its message."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from jobs.ledger import controls, transitions
from jobs.tables import Host
from tests.jobs.ledger.building import OTHER
from tests.support.servers import Server
from tests.workers.control.cluster import TURNS, Cluster
from workers.control import gangs, reconciler


def test_each_host_of_a_new_gang_gets_a_message_in_its_own_queue(cluster: Cluster) -> None:
    first, second, _ = cluster.hosts("a", "b", "c")
    job_id = cluster.training.job(machines=2)
    cluster.turn()
    run = cluster.live(job_id)
    assert cluster.messages("a") == [[run.id, 0, first.incarnation]]
    assert cluster.messages("b") == [[run.id, 1, second.incarnation]]
    assert cluster.messages("c") == []


def test_a_job_whose_gang_is_new_waits_for_its_hosts_to_begin(cluster: Cluster) -> None:
    cluster.hosts("a", "b")
    job_id = cluster.training.job(machines=2)
    cluster.turn()
    assert cluster.reason(job_id) == "2 of its hosts must begin first"


def test_a_job_that_runs_has_no_reason_to_wait(cluster: Cluster) -> None:
    cluster.hosts("a")
    job_id = cluster.training.job()
    cluster.started(job_id)
    cluster.turn()
    assert cluster.reason(job_id) == ""


def test_an_evaluation_takes_one_host(cluster: Cluster) -> None:
    cluster.hosts("a", "b")
    job_id = cluster.training.job(kind="evaluate", model="/model")
    (lease,) = cluster.started(job_id)
    assert lease.spec.kind == "evaluate"


def test_an_elastic_job_takes_the_hosts_that_are_idle(cluster: Cluster) -> None:
    cluster.hosts("a", "b", "c")
    cluster.started(cluster.training.job())
    job_id = cluster.training.job(machines="2..4")
    cluster.turn()
    assert cluster.live(job_id).machines == 2


# Messages.


def test_a_message_is_not_sent_again_at_once(cluster: Cluster) -> None:
    cluster.hosts("a")
    cluster.training.job()
    cluster.turn(TURNS)
    assert len(cluster.messages("a")) == 1


def test_a_lost_message_is_not_sent_again_before_its_time(cluster: Cluster) -> None:
    cluster.hosts("a")
    cluster.training.job()
    cluster.turn()
    cluster.plane.redis.flushall()
    cluster.turn()
    assert cluster.messages("a") == []


def test_every_lost_message_is_sent_again_at_its_time(cluster: Cluster) -> None:
    cluster.hosts("a", "b")
    cluster.training.job(machines=2)
    cluster.turn()
    cluster.plane.redis.flushall()
    cluster.pass_redispatch_time()
    cluster.turn()
    assert len(cluster.messages("a")) == len(cluster.messages("b")) == 1


def test_a_rank_that_was_claimed_gets_no_second_message(cluster: Cluster) -> None:
    cluster.hosts("a")
    cluster.started(cluster.training.job())
    cluster.pass_redispatch_time()
    cluster.turn()
    assert cluster.messages("a") == []


@contextmanager
def no_broker(valkey: Server) -> Iterator[None]:
    valkey.kill()
    try:
        yield
    finally:
        valkey.start()


def test_a_gang_without_a_broker_gets_its_messages_when_the_broker_is_back(
    cluster: Cluster, valkey: Server
) -> None:
    cluster.hosts("a")
    job_id = cluster.training.job()
    with no_broker(valkey):
        cluster.turn()
        assert cluster.reason(job_id).startswith("the broker does not answer")
    cluster.pass_redispatch_time()
    cluster.turn()
    assert len(cluster.messages("a")) == 1


# Who goes first.


def test_a_job_waits_while_too_few_hosts_are_idle(cluster: Cluster) -> None:
    cluster.hosts("a", "b", "c")
    first, second = cluster.training.job(machines=2), cluster.training.job(machines=2)
    cluster.started(first)
    cluster.turn(TURNS)
    assert cluster.training.live_run(second) is None
    assert cluster.reason(second) == "it needs 2 idle hosts of pool 'train'; 1 of 3 are"


def test_a_job_that_waited_forms_its_gang_when_another_has_succeeded(cluster: Cluster) -> None:
    cluster.hosts("a", "b", "c")
    first, second = cluster.training.job(machines=2), cluster.training.job(machines=2)
    leases = cluster.started(first)
    cluster.turn(TURNS)
    cluster.succeed(leases)
    assert len(cluster.started(second)) == 2


def test_a_small_job_does_not_overtake_a_big_one(cluster: Cluster) -> None:
    cluster.hosts("a", "b")
    cluster.started(cluster.training.job())
    big = cluster.training.job(machines=2)
    late = cluster.training.job()
    cluster.turn(TURNS)
    assert cluster.training.live_run(late) is None
    said = f"it gets hosts of pool 'train' after {big}; 1 of 2 hosts are idle"
    assert cluster.reason(late) == said


def test_a_big_job_takes_the_hosts_that_a_small_one_frees(cluster: Cluster) -> None:
    cluster.hosts("a", "b")
    leases = cluster.started(cluster.training.job())
    big, _late = cluster.training.job(machines=2), cluster.training.job()
    cluster.turn(TURNS)
    cluster.succeed(leases)
    cluster.turn()
    assert cluster.live(big).machines == 2


def test_a_job_that_wants_more_hosts_than_its_pool_has_says_so(cluster: Cluster) -> None:
    cluster.hosts("a", "b")
    huge = cluster.training.job(machines=3)
    cluster.turn()
    assert cluster.reason(huge) == (
        "it needs 3 hosts of pool 'train', which has 2: "
        "start more, or submit it with fewer machines"
    )


def test_a_job_that_wants_more_hosts_than_its_pool_has_blocks_no_other(cluster: Cluster) -> None:
    cluster.hosts("a", "b")
    cluster.training.job(machines=3)
    small = cluster.training.job()
    cluster.turn()
    assert cluster.live(small).machines == 1


def test_a_job_of_a_pool_without_hosts_says_what_to_start(cluster: Cluster) -> None:
    cluster.hosts("a")
    job_id = cluster.training.job(pool="elsewhere")
    cluster.turn()
    assert cluster.reason(job_id) == (
        "no training host of pool 'elsewhere' is alive; "
        "start one: `python -m workers.processes host`"
    )


def test_the_project_that_holds_fewer_hosts_goes_first(cluster: Cluster) -> None:
    cluster.hosts("a", "b")
    cluster.started(cluster.training.job())
    ours = cluster.training.job()
    theirs = cluster.training.job(project=OTHER)
    cluster.turn()
    assert cluster.training.live_run(ours) is None
    assert cluster.live(theirs)


# Hosts that are silent.


def test_a_host_without_a_heartbeat_is_not_taken(cluster: Cluster) -> None:
    cluster.hosts("a")
    cluster.make_older(Host, "beat_at", 60)
    job_id = cluster.training.job()
    cluster.turn()
    assert cluster.training.live_run(job_id) is None
    assert cluster.reason(job_id).startswith("no training host of pool 'train' is alive")


def test_a_pool_whose_only_host_drains_says_so(cluster: Cluster) -> None:
    cluster.hosts("a")
    job_id = cluster.training.job()
    cluster.training.drain("a", cluster.incarnations["a"])
    cluster.turn()
    assert cluster.training.live_run(job_id) is None
    assert cluster.reason(job_id).startswith(
        "the only training host of pool 'train' is draining and takes no new run; start one"
    )


def test_a_host_that_is_silent_for_long_is_forgotten_with_its_queue(cluster: Cluster) -> None:
    cluster.hosts("a")
    cluster.training.job()
    cluster.turn()
    cluster.training.clear()
    cluster.hosts("a")
    cluster.make_older(Host, "beat_at", 2 * gangs.FORGET_SECONDS)
    assert gangs.forget_hosts(cluster.training.sessions, cluster.plane.publisher) == 1
    assert cluster.messages("a") == []


# When control looks at training at all.


def test_control_looks_at_a_training_job_once_it_is_planned(cluster: Cluster) -> None:
    job_id = cluster.training.accept()
    assert not looks_at_training(cluster)
    cluster.training.plan(job_id)
    assert looks_at_training(cluster)


def test_control_looks_at_a_failed_job_until_its_ranks_have_ended(cluster: Cluster) -> None:
    cluster.hosts("a")
    job_id = cluster.training.job()
    leases = cluster.started(job_id)
    with cluster.training.sessions.begin() as session:
        transitions.fail(
            session, job_id, code="model_changed", message="its model is another one now"
        )
    assert looks_at_training(cluster)
    cluster.turn()
    cluster.stop_all(leases)
    assert not looks_at_training(cluster)


def test_control_looks_at_a_cancelled_job_until_it_has_ended(cluster: Cluster) -> None:
    cluster.do(controls.cancel, cluster.training.job())
    assert looks_at_training(cluster)
    cluster.turn()
    assert not looks_at_training(cluster)


def looks_at_training(cluster: Cluster) -> bool:
    return reconciler.look(cluster.training.sessions).training
