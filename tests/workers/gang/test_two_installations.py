"""Two installations on one machine, whose hosts have the same name: neither touches the other."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
import sqlalchemy as sa

from jobs.states import RunState
from jobs.tables import Host
from tests.support.installation import Installation
from tests.support.servers import Databases, Server
from tests.support.waiting import wait_until
from tests.workers.gang.trainer import Trainer
from workers.gang.program import HOST, INSTALLATION

NAME = "twin"
LONG = {"epochs": 20, "evaluate_steps": 100, "checkpoint_steps": 25}


def programs() -> dict[int, str]:
    """The programs of hosts of this name, with the installation of each."""
    found = {}
    for process in psutil.process_iter():
        try:
            variables = process.environ()
        except (psutil.Error, OSError):
            continue
        if variables.get(HOST) == NAME and INSTALLATION in variables:
            found[process.pid] = variables[INSTALLATION]
    return found


def host_is_there(installation: Installation) -> bool:
    with installation.sessions.begin() as session:
        return session.scalar(sa.select(Host.name).where(Host.name == NAME)) is not None


def test_a_second_installation_leaves_the_training_of_the_first_alone(
    trainer: Trainer, tmp_path: Path, fresh_database: Databases, valkey: Server
) -> None:
    first = trainer.installation
    shared = {"NIGHTSHIFT_HOST_FOLDER": str(tmp_path / "work"), "NIGHTSHIFT_HOST_POOL": "twins"}
    trainer.start(NAME, **shared)
    job_id = trainer.submit(train=LONG, pool="twins")
    trainer.wait_for_step(job_id, 5)
    before = programs()
    (folder,) = (tmp_path / "work").iterdir()
    (work,) = folder.iterdir()
    second = Installation(
        database_url=fresh_database(),
        redis_url=f"{valkey.url.rpartition('/')[0]}/1",
        home=tmp_path / "second",
        model=first.model,
    )
    try:
        second.start_host(NAME, **shared)
        wait_until(lambda: host_is_there(second), seconds=60)
        assert programs() == before
        assert work.is_dir()
    finally:
        second.stop()
    trainer.succeeded(job_id)
    assert [run.state for run in trainer.runs(job_id)] == [RunState.SUCCEEDED]


@pytest.mark.long
def test_an_agent_that_starts_again_ends_the_programs_of_its_own_installation(
    trainer: Trainer, tmp_path: Path
) -> None:
    shared = {"NIGHTSHIFT_HOST_FOLDER": str(tmp_path / "work"), "NIGHTSHIFT_HOST_POOL": "again"}
    trainer.start(NAME, **shared)
    job_id = trainer.submit(train=LONG, pool="again")
    trainer.wait_for_step(job_id, 5)
    before = programs()
    assert before
    trainer.installation.start_host(NAME, **shared)  # takes the name over
    wait_until(lambda: not set(before) & set(programs()), seconds=60)
    trainer.cancel(job_id)
