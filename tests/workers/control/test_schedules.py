"""Schedules in control's turn: the leader and the others fire, each fire once (P8)."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa

from jobs.ledger import keys, schedules
from jobs.lookups import clock
from jobs.schedules.states import FireState
from jobs.tables import ControlStatus, Fire, Job
from jobs.worker_names import ProcessName
from tests.jobs.ledger.scheduling import definition
from tests.support.installation import KEY, PROJECT, Installation
from tests.support.servers import Databases, Server
from tests.support.waiting import wait_until
from tests.workers.control.plane import ControlPlane
from workers.control import schedules as part

SECONDLY = {"every": "1s"}


@pytest.fixture(scope="module")
def installation(
    tmp_path_factory: pytest.TempPathFactory, fresh_database: Databases, valkey: Server
) -> Iterator[Installation]:
    valkey.start()
    home = tmp_path_factory.mktemp("schedules")
    installation = Installation(
        database_url=fresh_database(),
        redis_url=valkey.url,
        home=home,
        model=home,
        control_lease_seconds=2.0,
        allowed_inputs=["file:///"],
    )
    with installation.running("control", "control"):
        yield installation


def test_control_processes_fire_each_second_once_though_the_leader_is_killed(
    installation: Installation,
) -> None:
    with installation.sessions.begin() as session:
        schedule_id, _ = schedules.create(
            session,
            project_id=PROJECT,
            name="secondly",
            definition=definition(SECONDLY, overlap="allow", catch_up={"mode": "all"}),
            made_by=keys.key_hash(KEY),
            idempotency_key=None,
            settings=installation.settings,
            now=clock.now(session),
        )
    wait_until(lambda: leader(installation) and due(installation, schedule_id)[1:], seconds=60)
    pid = leader(installation)
    (process,) = [each for each in installation.processes if each.pid == pid]
    process.send(signal.SIGKILL)
    before = len(due(installation, schedule_id))
    wait_until(lambda: len(due(installation, schedule_id)) >= before + 3, seconds=60)
    found = due(installation, schedule_id)
    assert found == [found[0] + number * timedelta(seconds=1) for number in range(len(found))]
    with installation.sessions.begin() as session:
        jobs = sa.select(sa.func.count(Job.id)).select_from(Fire).outerjoin(Job)
        assert set(session.scalars(jobs.group_by(Fire.id))) == {1}


def test_a_turn_fires_what_is_due_and_one_without_asks_one_question(plane: ControlPlane) -> None:
    questions: list[str] = []
    with plane.ledger.sessions.begin() as session:
        now = clock.now(session)
        schedules.create(
            session,
            project_id="ours",
            name="now",
            definition=definition({"every": "1d", "start": now.isoformat()}),
            made_by=keys.key_hash("key of ours"),
            idempotency_key=None,
            settings=plane.settings.model_copy(update={"allowed_inputs": ["file:///"]}),
            now=now - timedelta(seconds=5),
        )
    plane.turn()
    with plane.ledger.sessions.begin() as session:
        (fire,) = session.scalars(sa.select(Fire))
        assert fire.state is FireState.FAILED
        assert "file:///corpus.jsonl" in (fire.reason or "")  # this control allows no input
        session.execute(sa.update(Fire).values(to_follow=False))
        session.execute(sa.text("UPDATE schedules SET next_due = NULL, next_at = NULL"))

    def ask(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        questions.append(statement)

    sa.event.listen(plane.ledger.engine, "before_cursor_execute", ask)
    assert part.look_and_fire(plane.ledger.sessions, settings=plane.settings) == 0
    sa.event.remove(plane.ledger.engine, "before_cursor_execute", ask)
    assert len(questions) == 1


def due(installation: Installation, schedule_id: str) -> list[datetime]:
    with installation.sessions.begin() as session:
        return list(
            session.scalars(
                sa.select(Fire.due).where(Fire.schedule_id == schedule_id).order_by(Fire.due)
            )
        )


def leader(installation: Installation) -> int:
    """The pid of the process that leads; 0: none does yet."""
    with installation.sessions.begin() as session:
        name = session.scalar(sa.select(ControlStatus.leader)) or "none:0"
    return ProcessName.read(name).pid
