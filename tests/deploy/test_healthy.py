"""What HEALTHCHECK runs tells the living from the dead, against a real Postgres."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import sqlalchemy as sa

from jobs import database
from jobs.ledger import workers
from tests.support.servers import Databases

PROGRAM = Path(__file__).parents[2] / "deploy" / "healthy.py"


def is_healthy(role: str, url: str) -> bool:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), role],
        env={**os.environ, "NIGHTSHIFT_DATABASE_URL": url},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode in (0, 1), done.stderr
    return done.returncode == 0


def test_control_is_well_while_somebody_leads(fresh_database: Databases) -> None:
    url = fresh_database()
    assert not is_healthy("control", url)
    with database.sessions(database.connect(url)).begin() as session:
        workers.control_turned(session, leader="another:7", broker_error=None)
    assert is_healthy("control", url)


def test_a_worker_is_well_while_one_of_its_own_host_beats(fresh_database: Databases) -> None:
    url = fresh_database()
    sessions = database.sessions(database.connect(url))
    with sessions.begin() as session:
        workers.beat(session, name="cpu-7@elsewhere", pool="cpu", slots=1, device="cpu")
    assert not is_healthy("worker", url)
    with sessions.begin() as session:
        name = f"cpu-7@{platform.node()}"
        workers.beat(session, name=name, pool="cpu", slots=1, device="cpu")
    assert is_healthy("worker", url)
    with sessions.begin() as session:
        session.execute(sa.text("UPDATE workers SET beat_at = now() - interval '1 minute'"))
    assert not is_healthy("worker", url)


def test_without_postgres_nobody_is_well() -> None:
    assert not is_healthy("control", "postgresql://127.0.0.1:9/nothing")
