"""Promise P12: a hung event loop ends its process, a broker that comes back ends none."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import sqlalchemy as sa

from jobs.states import ChunkState, JobState
from jobs.tables import Chunk
from jobs.worker_names import WorkerName
from tests.support import hanging
from tests.support.installation import Installation, Process, jsonl, sentences
from tests.support.installations import NewInstallation
from tests.support.servers import Server
from tests.support.silence import LOADING, silent_server
from tests.support.stopped import stopped_with_a_chunk
from tests.support.tiny_models import tiny_classifier
from tests.support.waiting import wait_until
from workers import app, heartbeat
from workers.watchdog import LoopWatchdog

LIMIT = 30.0
BEAT = LIMIT / 6


class Loop:
    """An event loop under a watchdog, on a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.broker = True
        self.watchdog = LoopWatchdog(
            LIMIT, broker_answers=lambda: self.broker, clock=lambda: self.now
        )

    def passes(self, seconds: float, *, turning: bool = False, looking: bool = True) -> bool:
        """Let time pass, with a look each beat; whether one of them found the loop hung."""
        hung = False
        for _ in range(round(seconds / BEAT)):
            self.now += BEAT
            if turning:
                self.watchdog.touch()
            if looking:
                hung = self.watchdog.is_hung() or hung
        return hung


@pytest.fixture
def loop() -> Loop:
    return Loop()


def test_a_loop_that_turns_does_not_hang(loop: Loop) -> None:
    assert not loop.passes(10 * LIMIT, turning=True)


def test_a_loop_that_is_silent_while_the_broker_answers_hangs(loop: Loop) -> None:
    assert not loop.passes(LIMIT)
    assert loop.passes(3 * BEAT)


@pytest.mark.parametrize("away", [BEAT, LIMIT, 20 * LIMIT])
def test_silence_before_the_brokers_return_does_not_count(loop: Loop, away: float) -> None:
    loop.broker = False
    assert not loop.passes(away + 3 * BEAT)
    loop.broker = True
    assert not loop.passes(LIMIT)
    assert loop.passes(2 * BEAT)


def test_a_broker_that_comes_and_goes_ends_no_process(loop: Loop) -> None:
    for _ in range(20):
        loop.broker = not loop.broker
        assert not loop.passes(LIMIT - BEAT)


def test_time_in_which_the_whole_process_was_stopped_does_not_count(loop: Loop) -> None:
    loop.passes(LIMIT, turning=True)
    loop.passes(10 * LIMIT, looking=False)
    assert not loop.passes(LIMIT)
    assert not loop.passes(LIMIT, turning=True)


def test_a_pause_within_a_silence_begins_it_again(loop: Loop) -> None:
    loop.passes(LIMIT)
    loop.passes(LIMIT, looking=False)
    assert not loop.passes(LIMIT)


@pytest.fixture(scope="module")
def installation(new_installation: NewInstallation) -> Iterator[Installation]:
    with new_installation(tiny_classifier, redispatch_seconds=3, host_name="watched").running(
        "control", "planner"
    ) as installation:
        yield installation


def started(installation: Installation, *roles: str, hang_seconds: int) -> list[Process]:
    """Processes of these roles that have connected to the broker."""
    env = {
        "NIGHTSHIFT_HANG_SECONDS": str(hang_seconds),
        "PYTHONPATH": os.pathsep.join([str(Path(hanging.__file__).parent), *sys.path]),
    }
    processes = [installation.start_role(role, **env) for role in roles]
    for process in processes:
        wait_until(lambda process=process: name_of(process), seconds=90)  # type: ignore[misc]
    return processes


def name_of(process: Process) -> str:
    """The name under which it has reported to be ready; empty: it has not."""
    for found in re.finditer(r'([^\s"]+@[^\s"]+) ready', process.log.read_text()):
        name = WorkerName.read(found[1])
        if name is not None and name.pid == process.pid:
            return found[1]
    return ""


def answering(valkey: Server, names: set[str]) -> set[str]:
    """Those workers that answer a ping now."""
    try:
        replies = app.make(valkey.url).control.ping(sorted(names))
    except redis.ConnectionError:  # a connection of this process that was made before the fault
        return set()
    return {name for reply in replies for name in reply}


@pytest.mark.parametrize(
    ("seconds", "hang_seconds", "answer"),
    [
        pytest.param(10, 4, b"", id="silent"),
        pytest.param(45, 30, b"", id="silent for long", marks=pytest.mark.long),
        pytest.param(45, 30, LOADING, id="loading for long", marks=pytest.mark.long),
    ],
)
def test_a_broker_that_dies_and_serves_again_much_later_ends_no_process(
    installation: Installation, valkey: Server, seconds: int, hang_seconds: int, answer: bytes
) -> None:
    processes = started(installation, "planner", "pool", "host", hang_seconds=hang_seconds)
    valkey.kill()
    with silent_server(sa.make_url(valkey.url).port or 0, answer=answer):
        time.sleep(seconds)  # the fault itself
    valkey.start()
    names = {name_of(each) for each in processes}
    wait_until(
        lambda: not all(each.alive for each in processes) or answering(valkey, names) == names,
        seconds=60,
    )
    assert [each.alive for each in processes] == [True] * 3, installation.logs()
    job_id = installation.submit(jsonl(sentences(20)), chunk_rows=5)
    assert installation.wait(job_id).job.state is JobState.SUCCEEDED
    for process in processes:
        process.stop()


def test_a_hung_worker_ends_and_its_chunk_counts_no_crash(installation: Installation) -> None:
    (worker,) = started(installation, "pool", hang_seconds=4)
    job_id = installation.submit(jsonl(sentences(200)), chunk_rows=5)
    pid, chunk = stopped_with_a_chunk(installation, job_id)
    worker.send(signal.SIGUSR2)
    wait_until(lambda: not worker.alive, seconds=30)
    os.kill(pid, signal.SIGKILL)
    assert worker.exit_code == heartbeat.HUNG
    with installation.sessions.begin() as session:
        freed = session.get_one(Chunk, chunk.id)
        assert (freed.state, freed.crashes) == (ChunkState.PENDING, 0)
    second = installation.start_role("pool")
    assert installation.wait(job_id).job.state is JobState.SUCCEEDED
    second.stop()
