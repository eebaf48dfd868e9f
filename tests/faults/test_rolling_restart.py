"""A new version goes out: every process is restarted in turn, while jobs compute and train.

Leases last longer than the test waits for a job. So a chunk, step or run that was not given back,
and would have to wait for its lease to run out, fails the test.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa

from api.stack import ports
from jobs.states import ACTIVE, JobState, RunState
from jobs.tables import Chunk, Event, Job
from jobs.worker_names import WorkerName, holder
from tests.support.installation import Installation, Process, jsonl, sentences
from tests.support.installations import NewInstallation
from tests.support.tiny_models import tiny_classifier
from tests.support.waiting import wait_until
from tests.workers.gang.trainer import Trainer

pytestmark = [pytest.mark.long, pytest.mark.timeout(1_800)]

LEASE, WAIT = 3_600, 240
"""Seconds: of a lease, and for which the test waits for a job."""
ROWS, CHUNK_ROWS = 20_000, 50
ROLES = ("control", "control", "planner", "planner", "pool", "pool")


@pytest.fixture
def installation(new_installation: NewInstallation) -> Iterator[Installation]:
    made = new_installation(
        tiny_classifier,
        lease_seconds=LEASE,
        worker_processes=1,
        train_grace_seconds=60,
        api_port=ports.choose(),
    )
    with made.running(*ROLES) as installation:
        installation.start("api.server")
        yield installation


class Load:
    """A bulk job and a fine-tune that run; where one has ended, the next begins."""

    def __init__(self, installation: Installation, trainer: Trainer) -> None:
        self._installation = installation
        self._trainer = trainer
        self.bulk: list[str] = []
        self.training: list[str] = []

    def keep_up(self) -> None:
        if not self._is_active(self.bulk):
            job_id = self._installation.submit(jsonl(sentences(ROWS)), chunk_rows=CHUNK_ROWS)
            self.bulk.append(job_id)
        if not self._is_active(self.training):
            train = {"epochs": 20, "evaluate_steps": 200, "checkpoint_steps": 200}
            self.training.append(self._trainer.submit(train=train))

    def until(self, fact: Callable[[], object]) -> None:
        """Keep it up until the fact holds."""

        def holds() -> object:
            self.keep_up()
            return fact()

        wait_until(holds, seconds=WAIT, every=0.01)

    def chunk_is_held_by(self, worker: Process) -> bool:
        """Whether a process that this worker has started computes a chunk now."""
        query = sa.select(Chunk.owner).where(Chunk.owner.is_not(None))
        with self._installation.sessions.begin() as session:
            owners = session.scalars(query).all()
        names = (WorkerName.read(holder(str(owner))) for owner in owners)
        return any(name is not None and name.pid == worker.pid for name in names)

    def trains_on(self, host: str) -> bool:
        """Whether this host has taken a step of a run that goes on."""
        run = self._trainer.runs(self.training[-1])[-1:]
        return bool(
            run
            and run[0].state is RunState.RUNNING
            and run[0].step > 0
            and self._trainer.host_of(run[0]) == host
        )

    def _is_active(self, job_ids: list[str]) -> bool:
        return bool(job_ids) and self._installation.job(job_ids[-1]).job.state in ACTIVE


def test_a_restart_of_every_process_in_turn_loses_nothing_and_waits_for_no_lease(
    installation: Installation,
) -> None:
    trainer = Trainer(installation)
    trainer.start("alpha")
    trainer.start("beta")
    load = Load(installation, trainer)
    for process in [each for each in installation.processes if "host-" not in each.log.name]:
        is_pool = process.log.name.endswith("pool.log")
        busy = load.chunk_is_held_by if is_pool else lambda _: True
        load.until(lambda process=process, busy=busy: busy(process))  # type: ignore[misc]
        process.stop(seconds=60)
        assert process.exit_code == 0, installation.logs()
        installation.start(*process.log.name.removesuffix(".log").split("-"))
    for name in itertools.islice(itertools.cycle(("alpha", "beta")), 2):
        load.until(lambda name=name: load.trains_on(name))  # type: ignore[misc]
        trainer.hosts[name].stop(seconds=90)
        trainer.start(name)
    for job_id in (*load.bulk, *load.training):
        view = installation.wait(job_id, seconds=WAIT)
        assert view.job.state is JobState.SUCCEEDED, f"{trainer.history(job_id)}\n{trainer.logs()}"
    for job_id in load.bulk:
        assert installation.verify(job_id).problems == ()
    ended = [run.state for job_id in load.training for run in trainer.runs(job_id)]
    assert set(ended) == {RunState.PREEMPTED, RunState.SUCCEEDED}
    with installation.sessions.begin() as session:
        deaths = sa.select(sa.func.count()).where(Event.type == "worker_died")
        assert session.scalar(deaths) == 0
        assert session.scalar(sa.select(sa.func.sum(Chunk.crashes))) == 0
        assert session.scalar(sa.select(sa.func.sum(Job.step_crashes + Job.faults))) == 0
