"""Promise P8 under SIGKILL: of three control processes one dies between any two statements."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from multiprocessing.connection import Connection

import pytest
import sqlalchemy as sa

from jobs import database
from jobs.schedules.states import FireState
from jobs.tables import Event, Fire, Job, JobGroup
from tests.jobs.ledger.building import Ledger
from tests.jobs.ledger.scheduling import HOUR, MINUTE, SETTINGS, SPEC, Clockwork
from tests.support.dying import at_boundaries
from tests.support.waiting import wait_until
from workers.control import schedules as control

FORK = multiprocessing.get_context("fork")
MADE = 3
GROUP = {
    "first": SPEC,
    "second": {**SPEC, "depends_on": ["first"]},
}


@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.long)])
def test_a_control_process_that_is_killed_between_two_statements_costs_no_fire(
    ledger: Ledger, step: int
) -> None:
    """Between any two in the long test; the short one tries every fifth place."""
    died = 0
    for boundary in count(1, step):
        if not survives_a_death(ledger, boundary):
            break
        died += 1
    assert died > 40 // step


def survives_a_death(ledger: Ledger, boundary: int) -> bool:
    """One process dies at this boundary, two live on; false: its turn ended before."""
    made = due_schedules(ledger)
    ours, theirs = FORK.Pipe()
    with running(turn_until, ledger.url, boundary, theirs) as pid:
        assert ours.poll(30), f"it neither came to boundary {boundary} nor ended"
        it_waits = bool(ours.recv())
        with running(turn_for_ever, ledger.url), running(turn_for_ever, ledger.url):
            # While it holds the lock on one schedule, the others fire all others.
            wait_until(lambda: submitted(ledger, made) >= MADE - 1, seconds=30)
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: submitted(ledger, made) == MADE, seconds=30)
    assert_each_fire_has_its_jobs(ledger, made)
    return it_waits


def due_schedules(ledger: Ledger) -> list[str]:
    """Two with a fire that is due, one of a group; and one whose fire waits for what has ended."""
    now = datetime.now(UTC)
    clock = Clockwork(ledger, now=now - 3 * HOUR)
    waits = clock.create(timing=hourly(now - HOUR - MINUTE), overlap="buffer_one")
    clock.move_to(now - HOUR)
    clock.move_to(now)
    clock.now = now - HOUR
    due = [clock.create(timing=hourly(now - MINUTE), jobs=jobs) for jobs in (None, GROUP)]
    clock.end(clock.jobs(waits)[0])
    return [waits, *due]


def hourly(start: datetime) -> dict[str, str]:
    return {"every": "1h", "start": start.isoformat()}


def turn_until(url: str, boundary: int, at_it: Connection) -> None:
    """A turn that waits at the boundary to be killed; it reports whether it came there."""
    engine = database.connect(url)

    def reached(number: int) -> None:
        if number == boundary:
            at_it.send("it waits")
            signal.pause()

    with at_boundaries(engine, reached):
        control.fire(database.sessions(engine), settings=SETTINGS)
    at_it.send(None)
    signal.pause()


def turn_for_ever(url: str) -> None:
    """As a control process that does not lead."""
    sessions = database.sessions(database.connect(url))
    while True:
        control.look_and_fire(sessions, settings=SETTINGS)
        time.sleep(0.01)


@contextmanager
def running(work: Callable[..., None], *args: object) -> Iterator[int]:
    """A process that does this work; killed in the end."""
    process = FORK.Process(target=work, args=args)
    process.start()
    assert process.pid is not None
    try:
        yield process.pid
    finally:
        process.kill()
        process.join()


def submitted(ledger: Ledger, made: Sequence[str]) -> int:
    query = sa.select(sa.func.count()).where(
        Fire.schedule_id.in_(made), Fire.state == FireState.SUBMITTED
    )
    with ledger.sessions.begin() as session:
        return session.scalar(query) or 0


def assert_each_fire_has_its_jobs(ledger: Ledger, made: Sequence[str]) -> None:
    """One each, and of the group all members, in one group; each job with one event."""
    query = sa.select(
        Fire.schedule_id, Job.group_id, Job.member, sa.func.count(Event.id).label("events")
    )
    with ledger.sessions.begin() as session:
        found = session.execute(
            query.join(Job, Job.fire_id == Fire.id)
            .join(Event, Event.job_id == Job.id)
            .where(Fire.schedule_id.in_(made), Fire.state == FireState.SUBMITTED)
            .group_by(Fire.schedule_id, Job.group_id, Job.member, Job.id)
        ).all()
        groups = session.scalar(
            sa.select(sa.func.count(JobGroup.id)).where(
                JobGroup.id.not_in(sa.select(Job.group_id).where(Job.group_id.is_not(None)))
            )
        )
    assert {row.events for row in found} == {1}
    waits, one, group = made
    assert Counter(row.schedule_id for row in found) == {waits: 1, one: 1, group: len(GROUP)}
    assert {row.member for row in found if row.schedule_id == group} == GROUP.keys()
    assert len({row.group_id for row in found if row.schedule_id == group}) == 1
    assert groups == 0, "a group without jobs"
