"""Schedules: how soon the jobs of many that are due at once exist, and what none due costs a turn.

``python -m benchmarks.schedules [SCHEDULES] [--due N] [--processes 1 3]``. A Postgres and a Valkey
of their own; N schedules are due within one second, all others tomorrow. For each number of
control processes: seconds from the first fire time until the last job is there. Before that, the
question with which each turn of control begins, with its part about schedules and without, in
turns.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa

from api.stack import ports
from api.stack import postgres as postgres_server
from api.stack import valkey as valkey_server
from api.stack.service import Child, Service
from benchmarks import machine
from jobs import database
from jobs.database import Sessions
from jobs.ledger import keys, projects, schedules
from jobs.queries import pending_work
from jobs.schedules.definition import Definition
from jobs.settings import Settings
from jobs.tables import Fire, Job

SCHEDULES = 10_000
DUE = 1_000
PROCESSES = (1, 3)
ROUNDS = 1_000
BATCH = 200
AHEAD = timedelta(seconds=40)
KEY = keys.key_hash("benchmark")
SPEC = {"kind": "classify", "corpus": {"uri": "file:///corpus.jsonl"}, "model": "/model"}
ALLOWED = '["file:///"]'


def main() -> None:
    given = _arguments()
    home = Path(tempfile.mkdtemp(prefix="nightshift-bench-"))
    home.chmod(0o711)  # Postgres runs as another user when we are root
    try:
        with _servers(home) as (database_url, redis_url):
            sessions = database.sessions(database.connect(database_url))
            with sessions.begin() as session:
                projects.ensure_key(session, project_id="benchmark", key="benchmark")
            tomorrow = datetime.now(UTC) + timedelta(days=1)
            _create(sessions, "later", given.schedules - given.due, first=tomorrow)
            figures: dict[str, Any] = _turns(sessions)
            for processes in given.processes:
                with ExitStack() as stack:
                    for number in range(processes):
                        log = home / f"control-{processes}-{number}.log"
                        stack.enter_context(_control(log, database_url, redis_url))
                    figures |= _fire(sessions, due=given.due, processes=processes)
        about = {"schedules": given.schedules, "due": given.due, "processes": given.processes}
        machine.keep("schedules", {**about, **figures})
    finally:
        shutil.rmtree(home)


def _fire(sessions: Sessions, *, due: int, processes: int) -> dict[str, float]:
    first = datetime.now(UTC) + AHEAD
    _create(sessions, f"due-{processes}", due, first=first, within=timedelta(seconds=1))
    assert datetime.now(UTC) < first, "give the schedules more time to be made"
    query = (
        sa.select(sa.func.count(Job.id)).join(Fire, Fire.id == Job.fire_id).where(Fire.due >= first)
    )
    while True:
        with sessions.begin() as session:
            made = session.scalar(query)
        if made == due:
            return {f"seconds_{processes}_processes": time.time() - first.timestamp()}
        time.sleep(0.02)


def _turns(sessions: Sessions) -> dict[str, float]:
    """Milliseconds of the question of a turn, with its part about schedules and without."""
    whole = pending_work.QUESTION
    without = sa.select(*(each for each in whole.selected_columns if each.name != "schedules"))
    took: dict[str, list[float]] = {"whole": [], "without": []}
    with sessions.begin() as session:
        session.execute(sa.text("ANALYZE"))
    for _ in range(ROUNDS):
        for name, question in (("whole", whole), ("without", without)):
            with sessions.begin() as session:
                begun = time.perf_counter()
                session.execute(question).one()
                took[name].append(time.perf_counter() - begun)
    return {
        "turn_question_median_milliseconds": 1e3 * statistics.median(took["whole"]),
        "turn_question_without_schedules_median_milliseconds": 1e3
        * statistics.median(took["without"]),
    }


def _create(
    sessions: Sessions,
    name: str,
    count: int,
    *,
    first: datetime,
    within: timedelta = timedelta(hours=1),
) -> None:
    """Daily schedules whose first fire times lie ``within`` this time from the first on."""
    settings = Settings(allowed_inputs=["file:///"])
    for begin in range(0, count, BATCH):
        with sessions.begin() as session:
            for number in range(begin, min(begin + BATCH, count)):
                start = first + within * number / count
                timing = {"every": "1d", "start": start.isoformat()}
                definition = {"timing": timing, "jobs": [{"spec": SPEC}]}
                schedules.create(
                    session,
                    project_id="benchmark",
                    name=f"{name}-{number}",
                    definition=Definition.model_validate(definition),
                    made_by=KEY,
                    idempotency_key=None,
                    settings=settings,
                    now=datetime.now(UTC),
                )


@contextmanager
def _servers(home: Path) -> Iterator[tuple[str, str]]:
    """The URLs of a Postgres, migrated, and of a Valkey."""
    log = home / "servers.log"
    postgres, database_url = postgres_server.service(home, port=ports.choose(), log=log)
    valkey, redis_url = valkey_server.service(home, port=ports.choose(), log=log)
    with running(postgres), running(valkey):
        postgres_server.ensure_database(database_url)
        database.migrate(database_url)
        yield database_url, redis_url


@contextmanager
def _control(log: Path, database_url: str, redis_url: str) -> Iterator[Child]:
    environment = {
        **os.environ,
        "NIGHTSHIFT_DATABASE_URL": database_url,
        "NIGHTSHIFT_REDIS_URL": redis_url,
        "NIGHTSHIFT_ALLOWED_INPUTS": ALLOWED,
    }
    command = (sys.executable, "-m", "workers.processes", "control")
    with running(Service("control", command, log=log, environment=environment)) as child:
        yield child


@contextmanager
def running(service: Service) -> Iterator[Child]:
    child = Child(service)
    try:
        while not child.is_ready():
            assert psutil.pid_exists(child.pid), service.log.read_text()
            time.sleep(0.05)
        yield child
    finally:
        child.stop()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("schedules", type=int, nargs="?", default=SCHEDULES)
    parser.add_argument("--due", type=int, default=DUE)
    parser.add_argument("--processes", type=int, nargs="+", default=list(PROCESSES))
    return parser.parse_args()


if __name__ == "__main__":
    main()
