"""Turns of control on training hosts whose devices also serve a pool of bulk work."""

from __future__ import annotations

import pytest

from jobs.ledger.ranks import RankLease
from tests.workers.control.cluster import TURNS, Cluster


def yielding(cluster: Cluster) -> tuple[str, str, list[RankLease]]:
    """A running training job on a host that yields, a bulk job, and the ranks of the first."""
    cluster.hosts("a", shares_pool="gpu", sharing="yield")
    job_id = cluster.training.job()
    leases = cluster.started(job_id)
    bulk = cluster.training.ledger.running(1, pool="gpu")
    cluster.turn()
    return job_id, bulk, leases


def test_a_run_makes_a_checkpoint_and_yields_to_bulk_work(cluster: Cluster) -> None:
    job_id, _, _ = yielding(cluster)
    assert cluster.live(job_id).stop == "checkpoint"


def test_a_job_that_has_yielded_waits_and_says_for_what(cluster: Cluster) -> None:
    job_id, _, leases = yielding(cluster)
    cluster.stop_all(leases)
    cluster.turn(TURNS)
    assert cluster.training.live_run(job_id) is None
    assert cluster.reason(job_id) == (
        "1 hosts of pool 'train' yield to bulk work; it begins when that is done"
    )


def test_a_job_that_has_yielded_runs_again_when_the_bulk_work_is_done(cluster: Cluster) -> None:
    job_id, bulk, leases = yielding(cluster)
    cluster.stop_all(leases)
    cluster.training.ledger.commit_all(bulk)
    cluster.turn()
    assert cluster.live(job_id).number == 2


def test_work_of_another_pool_stops_no_run(cluster: Cluster) -> None:
    cluster.hosts("a", shares_pool="gpu", sharing="yield")
    cluster.training.ledger.running(1, pool="cpu")
    job_id = cluster.training.job()
    cluster.turn(TURNS)
    assert cluster.live(job_id).stop is None


@pytest.mark.parametrize("sharing", ["beside", None])
def test_a_host_that_trains_beside_bulk_work_goes_on(cluster: Cluster, sharing: str | None) -> None:
    cluster.hosts("a", shares_pool="gpu" if sharing else None, sharing=sharing)
    cluster.training.ledger.running(1, pool="gpu")
    job_id = cluster.training.job()
    cluster.turn(TURNS)
    assert cluster.live(job_id).stop is None


def test_a_job_counts_the_hosts_that_refuse_to_train(cluster: Cluster) -> None:
    cluster.hosts("a", shares_pool="gpu", sharing="refuse")
    cluster.hosts("b")
    job_id = cluster.training.job(machines=2)
    cluster.turn(TURNS)
    assert cluster.reason(job_id).startswith(
        "it needs 2 hosts of pool 'train', which has 2, 1 of which refuse to train"
    )


def test_a_job_that_a_refusing_host_keeps_waiting_blocks_no_other(cluster: Cluster) -> None:
    cluster.hosts("a", shares_pool="gpu", sharing="refuse")
    cluster.hosts("b")
    cluster.training.job(machines=2)
    small = cluster.training.job()
    cluster.turn(TURNS)
    assert cluster.live(small)
