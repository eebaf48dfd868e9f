"""Hosts in the ledger: who is there, and what ends with an agent."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from jobs.decisions.run_verdict import RankOutcome
from jobs.ledger import hosts, runs
from jobs.states import RankState
from tests.jobs.ledger.building import Ledger
from tests.jobs.ledger.training import Training
from tests.support.waiting import wait_until


@pytest.fixture
def training(ledger: Ledger) -> Training:
    return Training(ledger)


# Hosts.


def test_a_host_that_is_started_anew_has_lost_its_rank(training: Training) -> None:
    host = training.host()
    (lease,) = training.claimed(training.formed(training.job(), [host]))
    training.host(host.name)
    rank = training.rank(lease)
    assert (rank.outcome, rank.error) == (RankOutcome.SILENT, "the host's agent was restarted")
    assert training.renew(lease) is None
    assert training.reserved([host]) == {lease.run_id}  # until the run is judged


def test_a_host_that_is_started_anew_while_a_gang_is_formed_loses_that_rank_too(
    training: Training,
) -> None:
    """Otherwise its message would be void, and the gang would wait without end."""
    host, job_id = training.host(), training.job()
    with ThreadPoolExecutor(1) as pool, training.sessions.begin() as session:
        run_id = runs.form(session, job_id, [host.name])
        assert run_id is not None
        arrival = pool.submit(training.host, host.name)
        wait_until(lambda: training.waiting() == 1)
        session.commit()
        arrival.result(10)
    assert training.ranks(run_id)[0].state is RankState.ENDED


def test_another_hosts_rank_is_not_touched_by_an_arrival(training: Training) -> None:
    gang = training.hosts(2)
    leases = training.claimed(training.formed(training.job(machines=2), gang))
    training.host(gang[0].name)
    assert [training.rank(each).state for each in leases] == [RankState.ENDED, RankState.LEASED]


def test_a_beat_keeps_a_host_and_one_under_a_taken_name_does_not(training: Training) -> None:
    old = training.host()
    training.age(old.name, seconds=900)
    assert training.beat(old)
    new = training.host(old.name)
    assert not training.beat(old)
    row = training.host_row(new.name)
    assert row is not None
    assert row.incarnation == new.incarnation


def test_a_beat_of_a_host_that_was_forgotten_brings_it_back(training: Training) -> None:
    host = training.host()
    training.age(host.name, seconds=900)
    assert host.name in training.forget()
    assert training.beat(host)
    assert training.host_row(host.name) is not None


def test_a_draining_host_stays_so_until_it_is_started_anew(training: Training) -> None:
    host = training.host()
    training.drain(host.name, host.incarnation)
    assert training.beat(host)
    assert training.form(training.job(), [host]) is None
    assert training.form(training.job(), [training.host(host.name)]) is not None


def test_the_run_on_a_draining_host_is_asked_to_stop_without_control(training: Training) -> None:
    host = training.host()
    job_id = training.job()
    run_id = training.formed(job_id, [host])
    (lease,) = training.claimed(run_id)
    training.drain(host.name, host.incarnation)
    run = training.run(lease.run_id)
    assert (run.stop, run.stop_reason) == ("checkpoint", f"host {host.name} is going away")


def test_an_old_agent_neither_drains_nor_removes_its_successor(training: Training) -> None:
    old = training.host()
    training.host(old.name)
    training.drain(old.name, old.incarnation)
    with training.sessions.begin() as session:
        hosts.leave(session, name=old.name, incarnation=old.incarnation)
    row = training.host_row(old.name)
    assert row is not None
    assert not row.draining


def test_a_silent_host_is_forgotten_unless_a_run_holds_it(training: Training) -> None:
    idle, busy, alive = training.hosts(3)
    training.formed(training.job(), [busy])
    for host in (idle, busy):
        training.age(host.name, seconds=900)
    assert training.forget() == [idle.name]
    assert training.host_row(busy.name) is not None
    assert training.host_row(alive.name) is not None
