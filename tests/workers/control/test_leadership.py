"""One control leads at a time, and another takes over when it dies or hangs (P12)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import count

import psycopg
import pytest
import sqlalchemy as sa

from jobs.tables import ControlStatus, Job
from tests.support.waiting import wait_until
from tests.workers.control.plane import ControlPlane
from workers.control.leadership import Leadership, LeadershipLost
from workers.control.loop import Control

LONG = timedelta(minutes=10)
SHORT = timedelta(seconds=0.4)
_names = count(1)


def candidate(plane: ControlPlane, *, duration: timedelta = LONG) -> Leadership:
    return Leadership(plane.ledger.url, name=f"control-{next(_names)}", duration=duration)


def test_of_two_exactly_one_leads(plane: ControlPlane) -> None:
    with candidate(plane) as first, candidate(plane) as second:
        assert [first.is_leader(), second.is_leader(), first.is_leader(), second.is_leader()] == [
            True,
            False,
            True,
            False,
        ]


def test_of_many_that_claim_at_once_one_leads(plane: ControlPlane) -> None:
    everybody = [candidate(plane) for _ in range(6)]
    leads: list[bool] = []
    threads = [
        threading.Thread(target=lambda one=one: leads.append(one.is_leader())) for one in everybody
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in everybody:
        one.__exit__(None, None, None)
    assert sorted(leads) == [False] * 5 + [True]


def test_another_leads_once_the_leader_is_gone_however_long_its_lease(plane: ControlPlane) -> None:
    with candidate(plane) as second:
        with candidate(plane) as first:
            assert first.is_leader()
            assert not second.is_leader()
        wait_until(second.is_leader)


def test_a_leader_whose_connection_broke_leads_no_more(plane: ControlPlane) -> None:
    with candidate(plane) as first, candidate(plane) as second:
        assert first.is_leader()
        _end_connection(plane, pid=first._connection.info.backend_pid)
        wait_until(second.is_leader)
        with pytest.raises(sa.exc.OperationalError):
            first.record_turn(broker_error=None)


def test_a_leader_that_does_not_turn_is_replaced(plane: ControlPlane) -> None:
    with candidate(plane, duration=SHORT) as first, candidate(plane, duration=SHORT) as second:
        assert first.is_leader()
        assert not second.is_leader()
        wait_until(second.is_leader)
        with pytest.raises(sa.exc.OperationalError):
            first.record_turn(broker_error=None)
        assert _fence(plane) == 2


def test_a_leader_that_turns_is_not_replaced(plane: ControlPlane) -> None:
    with candidate(plane, duration=SHORT) as first, candidate(plane, duration=SHORT) as second:
        assert first.is_leader()
        for _ in range(10):
            first.wait(0.1)
            first.record_turn(broker_error=None)
            assert not second.is_leader()


def test_a_leader_that_waits_for_a_long_statement_is_not_replaced(plane: ControlPlane) -> None:
    with candidate(plane, duration=SHORT) as first, candidate(plane, duration=SHORT) as second:
        assert first.is_leader()
        thread = threading.Thread(target=_sleep_in_postgres, args=(first, 1.5))
        thread.start()
        led: list[bool] = []
        while thread.is_alive():
            led.append(second.is_leader())
        thread.join()
        assert led.count(True) == 0
        first.record_turn(broker_error=None)


def test_a_late_leader_that_no_one_replaced_leads_on_as_a_fresh_one(plane: ControlPlane) -> None:
    with candidate(plane, duration=SHORT) as alone:
        assert alone.is_leader()
        alone.wait(3 * SHORT.total_seconds())
        alone.record_turn(broker_error=None)
        assert alone.led_for < SHORT.total_seconds()
        assert _fence(plane) == 1


def test_what_a_late_leader_had_begun_is_undone_and_locks_no_one(plane: ControlPlane) -> None:
    job_id = plane.ledger.accept()
    with candidate(plane, duration=SHORT) as first, candidate(plane, duration=SHORT) as second:
        assert first.is_leader()
        session = first.sessions()
        session.execute(sa.update(Job).where(Job.id == job_id).values(priority=7))
        wait_until(second.is_leader)
        with second.sessions.begin() as another:
            another.execute(sa.text("SET LOCAL lock_timeout = '10ms'"))
            another.execute(
                sa.update(Job).where(Job.id == job_id).values(model_pinned="by the second")
            )
        with pytest.raises(sa.exc.OperationalError):
            session.commit()
        with pytest.raises(sa.exc.OperationalError):
            _set_priority(first, job_id)
    job = plane.ledger.job(job_id)
    assert (job.priority, job.model_pinned) == (0, "by the second")


def test_a_leader_whose_fence_is_void_writes_no_turn(plane: ControlPlane) -> None:
    with candidate(plane) as first:
        assert first.is_leader()
        with plane.ledger.sessions.begin() as session:
            session.execute(sa.update(ControlStatus).values(fence=ControlStatus.fence + 1))
        with pytest.raises(LeadershipLost):
            first.record_turn(broker_error="must not be written")
    with plane.ledger.sessions.begin() as session:
        assert session.get_one(ControlStatus, 1).broker_error is None


def test_a_leader_hears_every_ring_that_came_while_it_worked_at_once(plane: ControlPlane) -> None:
    with candidate(plane) as leadership:
        assert leadership.is_leader()
        for _ in range(5):
            _ring(plane)
        leadership.record_turn(broker_error=None)
        leadership.wait(5)
        assert not list(leadership._connection.notifies(timeout=0.2))


def test_a_control_that_waits_to_lead_hoards_no_rings(plane: ControlPlane) -> None:
    with candidate(plane) as first, candidate(plane) as second:
        assert first.is_leader()
        for _ in range(5):
            _ring(plane)
        assert not second.is_leader()
        assert not list(second._connection.notifies(timeout=0.2))


def test_a_submit_wakes_the_leader(plane: ControlPlane) -> None:
    with candidate(plane) as leadership:
        assert leadership.is_leader()
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
    with _running(plane.another_control()), _running(plane.another_control()):
        plane.ledger.running(1)
        wait_until(lambda: plane.take() or None)
        with psycopg.connect(plane.ledger.url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' "
                "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
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


def _sleep_in_postgres(leadership: Leadership, seconds: float) -> None:
    with leadership.sessions.begin() as session:
        session.execute(sa.select(sa.func.pg_sleep(seconds)))


def _set_priority(leadership: Leadership, job_id: str) -> None:
    with leadership.sessions.begin() as session:
        session.execute(sa.update(Job).where(Job.id == job_id).values(priority=9))


def _fence(plane: ControlPlane) -> int:
    with plane.ledger.sessions.begin() as session:
        return session.get_one(ControlStatus, 1).fence


def _ring(plane: ControlPlane) -> None:
    with psycopg.connect(plane.ledger.url, autocommit=True) as connection:
        connection.execute("NOTIFY nightshift_control")


def _end_connection(plane: ControlPlane, *, pid: int) -> None:
    with psycopg.connect(plane.ledger.url, autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
