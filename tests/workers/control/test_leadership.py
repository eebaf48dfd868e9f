"""One control leads at a time, and another takes over."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from tests.support.waiting import wait_until
from tests.workers.control.plane import ControlPlane
from workers.control.leadership import Leadership
from workers.control.loop import Control


def test_of_two_exactly_one_leads(plane: ControlPlane) -> None:
    with Leadership(plane.ledger.url) as first, Leadership(plane.ledger.url) as second:
        assert [first.held(), second.held(), first.held(), second.held()] == [
            True,
            False,
            True,
            False,
        ]


def test_another_leads_once_the_leader_is_gone(plane: ControlPlane) -> None:
    with Leadership(plane.ledger.url) as second:
        with Leadership(plane.ledger.url) as first:
            assert first.held()
            assert not second.held()
        wait_until(second.held)


def test_a_leader_whose_connection_broke_leads_no_more(plane: ControlPlane) -> None:
    with Leadership(plane.ledger.url) as first, Leadership(plane.ledger.url) as second:
        assert first.held()
        _end_connection(plane, pid=first._connection.info.backend_pid)
        wait_until(second.held)
        with pytest.raises(psycopg.OperationalError):
            first.held()


def test_a_leader_hears_every_ring_that_came_while_it_worked_at_once(plane: ControlPlane) -> None:
    with Leadership(plane.ledger.url) as leadership:
        assert leadership.held()
        for _ in range(5):
            _ring(plane)
        leadership.held()
        leadership.wait(5)
        assert not list(leadership._connection.notifies(timeout=0.2))


def test_a_control_that_waits_to_lead_hoards_no_rings(plane: ControlPlane) -> None:
    with Leadership(plane.ledger.url) as first, Leadership(plane.ledger.url) as second:
        assert first.held()
        for _ in range(5):
            _ring(plane)
        assert not second.held()
        assert not list(second._connection.notifies(timeout=0.2))


def test_a_submit_wakes_the_leader(plane: ControlPlane) -> None:
    with Leadership(plane.ledger.url) as leadership:
        assert leadership.held()
        woken = threading.Event()

        def wait() -> None:
            leadership.wait(20)
            woken.set()

        thread = threading.Thread(target=wait)
        thread.start()
        plane.ledger.accept()
        assert woken.wait(10)
        thread.join()


def test_the_work_goes_on_when_the_leaders_connection_dies(plane: ControlPlane) -> None:
    with _running(plane.control), _running(plane.another_control()):
        plane.ledger.running(1)
        wait_until(lambda: plane.take() or None)
        with psycopg.connect(plane.ledger.url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'nightshift-control-leader'"
            )
        plane.ledger.running(1)
        wait_until(lambda: plane.take() or None)


@contextmanager
def _running(control: Control) -> Iterator[None]:
    thread = threading.Thread(target=control.run)
    thread.start()
    try:
        yield
    finally:
        control.stop()
        thread.join(10)


def _ring(plane: ControlPlane) -> None:
    with psycopg.connect(plane.ledger.url, autocommit=True) as connection:
        connection.execute("NOTIFY nightshift_control")


def _end_connection(plane: ControlPlane, *, pid: int) -> None:
    with psycopg.connect(plane.ledger.url, autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
