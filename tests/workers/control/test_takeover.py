"""Real control processes that are stopped, killed and ended; another one leads soon (P12)."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from jobs.worker_names import ProcessName
from tests.support.installation import Installation, Process
from tests.support.installations import NewInstallation
from tests.support.waiting import wait_until

LEASE = 2.0


@pytest.fixture(scope="module")
def installation(new_installation: NewInstallation) -> Iterator[Installation]:
    with new_installation(Path("no model"), control_lease_seconds=LEASE).running(
        "control"
    ) as installation:
        wait_until(lambda: leader(installation), seconds=60)
        installation.start_role("control")
        yield installation


@pytest.fixture
def leading(installation: Installation) -> Process:
    """The process that leads; another one follows, so that there are always two."""
    alive = [process for process in installation.processes if process.alive]
    if len(alive) < 2:
        alive.append(installation.start_role("control"))
    wait_until(lambda: followers(installation) >= 1, seconds=60)
    pid = leader(installation)
    return next(process for process in alive if process.pid == pid)


def leader(installation: Installation) -> int:
    """The pid of the process that turned last; 0: none has."""
    found = ask(installation, "SELECT leader FROM control_status")
    return ProcessName.read(found[0][0]).pid if found else 0


def followers(installation: Installation) -> int:
    """Sessions of control that hold no lock."""
    return len(
        ask(
            installation,
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
            "AND application_name = 'nightshift-control' "
            "AND pid NOT IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory')",
        )
    )


def ask(installation: Installation, question: str) -> list[tuple[str, ...]]:
    with psycopg.connect(installation.settings.database_url, autocommit=True) as connection:
        return connection.execute(question.encode()).fetchall()


def assert_replaced(installation: Installation, process: Process, *, seconds: float) -> None:
    pid = process.pid
    wait_until(lambda: leader(installation) not in (0, pid), seconds=seconds)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_leader_that_ends_is_replaced_at_once(
    installation: Installation, leading: Process, number: signal.Signals
) -> None:
    leading.send(number)
    assert_replaced(installation, leading, seconds=LEASE + 3)
    wait_until(lambda: not leading.alive, seconds=20)


def test_a_stopped_leader_is_replaced_and_follows_when_it_wakes(
    installation: Installation, leading: Process
) -> None:
    leading.send(signal.SIGSTOP)
    assert_replaced(installation, leading, seconds=LEASE + 5)
    leading.send(signal.SIGCONT)
    second = leader(installation)
    wait_until(lambda: followers(installation) == 1, seconds=20)
    assert leading.alive
    os.kill(second, signal.SIGKILL)
    wait_until(lambda: leader(installation) == leading.pid, seconds=LEASE + 5)


def test_a_leader_that_is_stopped_in_a_transaction_locks_no_one_out(
    installation: Installation, leading: Process
) -> None:
    """The test holds the row of the lease until the leader waits for it, and stops it there."""
    with psycopg.connect(installation.settings.database_url) as holder:
        holder.execute("SELECT 1 FROM control_status FOR UPDATE")
        waiting = (
            "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
            "AND datname = current_database() AND application_name = 'nightshift-control'"
        )
        wait_until(lambda: ask(installation, waiting), seconds=20)
        leading.send(signal.SIGSTOP)
    in_transaction = (
        "SELECT pid FROM pg_stat_activity WHERE state = 'idle in transaction' "
        "AND datname = current_database() AND application_name = 'nightshift-control'"
    )
    wait_until(lambda: ask(installation, in_transaction), seconds=LEASE)
    assert_replaced(installation, leading, seconds=LEASE + 5)
    leading.send(signal.SIGCONT)
    wait_until(lambda: followers(installation) == 1, seconds=20)
    assert leader(installation) != leading.pid
