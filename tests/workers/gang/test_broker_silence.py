"""A broker that dies and is silent for long, in the middle of work, costs none of it (P1, P12)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy as sa

from jobs.states import JobState, RunState
from jobs.tables import Chunk, Event
from tests.support.installation import Installation, jsonl, sentences
from tests.support.servers import Server
from tests.support.silence import silent_server
from tests.support.waiting import wait_until
from tests.workers.gang.trainer import Trainer

pytestmark = pytest.mark.long

SILENCE = 45.0
"""Longer than ``hang_seconds``, after which a loop that does not turn ends its process."""

ROWS = 1_500
ENDLESS = {"epochs": 10_000, "evaluate_steps": 1_000_000, "checkpoint_steps": 1000}


def crashes(installation: Installation, job_id: str) -> tuple[int, list[str]]:
    """Crashes that the chunks of a job count, and its events of workers that died."""
    with installation.sessions.begin() as session:
        count = sa.select(sa.func.sum(Chunk.crashes)).where(Chunk.job_id == job_id)
        died = sa.select(Event.type).where(Event.job_id == job_id, Event.type == "worker_died")
        return session.scalar(count) or 0, list(session.scalars(died))


@contextmanager
def silence(valkey: Server) -> Iterator[None]:
    """The broker dies; within, something silent listens in its place; then it serves again."""
    valkey.kill()
    try:
        with silent_server(sa.make_url(valkey.url).port or 0):
            yield
    finally:
        valkey.start()


def test_a_broker_that_is_silent_for_long_ends_no_worker_and_loses_nothing(
    trainer: Trainer, valkey: Server
) -> None:
    installation = trainer.installation
    installation.start_role("pool")
    training = trainer.submit(train=ENDLESS)
    trainer.wait_for_step(training, 5)
    bulk = installation.submit(jsonl(sentences(ROWS)), chunk_rows=10)
    installation.wait_for_chunks(bulk, 20)
    processes = [process for process in installation.processes if process.alive]
    with silence(valkey):
        time.sleep(SILENCE)  # the fault itself
        assert installation.job(training).job.state is JobState.RUNNING
        assert installation.job(bulk).job.state is JobState.RUNNING
        steps = trainer.runs(training)[-1].step
        done = installation.job(bulk).counts.done
    back = time.monotonic()
    wait_until(lambda: installation.job(bulk).counts.done > done, seconds=120)
    print(f"chunks went on {time.monotonic() - back:.1f} s after the broker")  # noqa: T201
    assert installation.wait(bulk).job.state is JobState.SUCCEEDED
    assert installation.verify(bulk).problems == ()
    trainer.wait_for_step(training, steps + 1)
    assert steps > 5
    assert [run.state for run in trainer.runs(training)] == [RunState.RUNNING]
    assert [process.alive for process in processes] == [True] * len(processes)
    assert crashes(installation, bulk) == (0, [])
    trainer.cancel(training)
    trainer.wait_until_idle(training)
    installation.stop_role("pool")
