"""What HEALTHCHECK runs tells the living from the dead, against a real Postgres."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from jobs import database, temporary
from jobs.ledger import leadership, workers
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
        leadership.claim(session, leader="another:7", duration=timedelta(seconds=10))
    assert is_healthy("control", url)


def test_a_worker_is_well_while_it_beats_itself(
    fresh_database: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # as a container has its own
    monkeypatch.setattr(tempfile, "tempdir", None)
    url = fresh_database()
    sessions = database.sessions(database.connect(url))
    with sessions.begin() as session:
        workers.beat(session, name="cpu-7-ab@same", pool="cpu", slots=1, device="cpu")
    assert not is_healthy("worker", url)
    temporary.worker_file().write_text("cpu-7-cd@same")
    assert not is_healthy("worker", url)
    with sessions.begin() as session:
        workers.beat(session, name="cpu-7-cd@same", pool="cpu", slots=1, device="cpu")
    assert is_healthy("worker", url)
    with sessions.begin() as session:
        session.execute(sa.text("UPDATE workers SET beat_at = now() - interval '1 minute'"))
    assert not is_healthy("worker", url)


def test_without_postgres_nobody_is_well() -> None:
    assert not is_healthy("control", "postgresql://127.0.0.1:9/nothing")
