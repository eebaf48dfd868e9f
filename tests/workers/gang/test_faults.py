"""Each process that can die during a training is killed; the final weights stay the same (P7)."""

from __future__ import annotations

import signal

import psutil
import pytest
import redis

from jobs.states import RunState
from tests.support.installation import Installation
from tests.support.servers import Server
from tests.support.waiting import wait_until
from tests.workers.gang.trainer import Trainer
from workers.gang.program import HOST

pytestmark = pytest.mark.long

LONG = {"epochs": 20, "evaluate_steps": 100, "checkpoint_steps": 25}


@pytest.fixture(scope="module")
def undisturbed(hosts: Trainer) -> str:
    """The final weights of an undisturbed training."""
    job_id = hosts.submit(train=LONG)
    hosts.succeeded(job_id)
    return hosts.weights(job_id)


@pytest.fixture
def job(trainer: Trainer, undisturbed: str) -> str:  # noqa: ARG001 - it warms up
    """The same training while it runs, with a checkpoint stored."""
    job_id = trainer.submit(train=LONG)
    trainer.wait_for_checkpoint(job_id)
    return job_id


def programs(host: str) -> list[psutil.Process]:
    """The training processes of a host, launchers left out."""
    found = []
    for process in psutil.process_iter():
        try:
            ours = process.environ().get(HOST) == host
            if ours and "workers.training.train" in process.cmdline()[-2]:
                found.append(process)
        except (psutil.Error, OSError, IndexError):
            continue
    return [process for process in found if "accelerate.commands.launch" not in process.cmdline()]


def test_a_killed_program_costs_the_steps_since_the_checkpoint(
    trainer: Trainer, job: str, undisturbed: str
) -> None:
    (rank,) = trainer.live_ranks(job)
    for process in programs(rank.host):
        process.kill()
    trainer.succeeded(job)
    first, second = trainer.runs(job)
    assert (first.state, second.state) == (RunState.LOST, RunState.SUCCEEDED)
    assert "killed by signal 9" in (first.reason or "")
    assert second.checkpoint_id is not None
    assert trainer.weights(job) == undisturbed


def test_a_killed_agent_takes_its_program_with_it(
    trainer: Trainer, job: str, undisturbed: str
) -> None:
    (rank,) = trainer.live_ranks(job)
    running = programs(rank.host)
    assert running
    trainer.hosts[rank.host].send(signal.SIGKILL)
    wait_until(lambda: not any(process.is_running() for process in running), seconds=30)
    trainer.start(rank.host)
    trainer.succeeded(job)
    assert trainer.runs(job)[0].state is RunState.LOST
    assert trainer.weights(job) == undisturbed


def test_a_host_that_is_asked_to_end_makes_a_checkpoint_and_another_goes_on(
    trainer: Trainer, job: str, undisturbed: str
) -> None:
    (rank,) = trainer.live_ranks(job)
    before = trainer.checkpoints(job)[-1].step
    trainer.hosts[rank.host].send(signal.SIGTERM)
    trainer.succeeded(job)
    first, second = trainer.runs(job)
    assert first.state is RunState.PREEMPTED
    assert "going away" in (first.reason or "")
    assert trainer.first_step_of(second) > before
    assert trainer.host_of(second) != rank.host
    assert trainer.weights(job) == undisturbed
    wait_until(lambda: not trainer.hosts[rank.host].alive, seconds=60)
    trainer.start(rank.host)


def test_servers_that_die_in_the_middle_do_not_stop_the_training(
    trainer: Trainer, job: str, undisturbed: str, postgres: Server, valkey: Server
) -> None:
    valkey.kill()
    postgres.kill()
    valkey.start()
    postgres.start()
    with redis.Redis.from_url(valkey.url) as client:
        client.flushall()
    trainer.succeeded(job)
    assert trainer.weights(job) == undisturbed


def test_a_control_process_that_dies_changes_nothing(
    installation: Installation, trainer: Trainer, job: str, undisturbed: str
) -> None:
    control = next(
        p for p in installation.processes if p.log.name == "workers.processes-control.log"
    )
    control.kill()
    installation.processes.remove(control)
    installation.start_role("control")
    trainer.succeeded(job)
    assert trainer.weights(job) == undisturbed


def test_a_higher_priority_gets_the_hosts_and_the_other_goes_on_later(
    trainer: Trainer, job: str, undisturbed: str
) -> None:
    urgent = trainer.submit(machines=2, priority=9, model="urgent")
    trainer.succeeded(urgent)
    trainer.succeeded(job)
    first = trainer.runs(job)[0]
    assert first.state is RunState.PREEMPTED
    assert urgent in (first.reason or "")
    assert trainer.weights(job) == undisturbed


def test_a_checkpoint_with_a_flipped_byte_is_passed_over(
    installation: Installation, trainer: Trainer, job: str, undisturbed: str
) -> None:
    trainer.wait_for_checkpoint(job, past=25)
    trainer.pause(job)
    trainer.wait_until_idle(job)
    newest = trainer.checkpoints(job)[-1]
    key = next(
        key
        for key in installation.store.keys(newest.manifest_key.rpartition("/")[0])
        if key.endswith("weights.pt")
    )
    damaged = bytearray(installation.store.get(key))
    damaged[len(damaged) // 2] ^= 1
    installation.store.put(key, bytes(damaged))
    trainer.resume(job)
    trainer.succeeded(job)
    assert trainer.checkpoint(newest.id).damaged_at is not None
    assert "damaged" in " ".join(run.reason or "" for run in trainer.runs(job))
    assert trainer.first_step_of(trainer.runs(job)[-1]) < newest.step
    assert trainer.weights(job) == undisturbed


def test_a_hung_program_is_found_and_another_run_goes_on(trainer: Trainer) -> None:
    trainer.start("patient", NIGHTSHIFT_HOST_POOL="hanging", NIGHTSHIFT_TRAIN_STALL_SECONDS="40")
    job_id = trainer.submit(train=LONG, pool="hanging")
    trainer.wait_for_checkpoint(job_id)
    for process in programs("patient"):
        process.suspend()
    trainer.succeeded(job_id, seconds=240)
    first = trainer.runs(job_id)[0]
    assert first.state is RunState.LOST
    assert "no step within the limit" in (first.reason or "")
    trainer.hosts["patient"].stop()
