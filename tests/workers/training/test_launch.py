"""The command lines, and the program under its real launcher."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import JobFailure
from tests.support.tiny_models import tiny_encoder
from tests.workers.training.fork_server import ForkServer
from tests.workers.training.work_folder import (
    ended,
    free_port,
    labelled,
    wait_until,
    weights,
    work_folder,
)
from workers.training import launch, shutdown

RECIPE = {"epochs": 2, "batch_rows": 8, "learning_rate": 1e-3, "evaluate_steps": 5}


def command(folder: Path, **changes: Any) -> tuple[list[str], dict[str, str]]:
    usual: dict[str, Any] = {
        "machines": 1,
        "rank": 0,
        "processes": 1,
        "address": "10.0.0.1",
        "port": 4000,
        "mixed_precision": "no",
        "accelerate": None,
        "cpu": False,
    }
    return launch.command(run=folder / "run.json", **usual | changes)


def config(folder: Path) -> dict[str, Any]:
    written: dict[str, Any] = json.loads((folder / "accelerate.json").read_bytes())
    return written


def test_one_process_needs_no_ranks(tmp_path: Path) -> None:
    arguments, _ = command(tmp_path)
    assert config(tmp_path)["distributed_type"] == "NO"
    assert arguments[arguments.index("--num_processes") + 1] == "1"


def test_the_processes_of_all_machines_are_counted(tmp_path: Path) -> None:
    arguments, environment = command(tmp_path, machines=3, rank=2, processes=4, cpu=True)
    assert config(tmp_path)["distributed_type"] == "MULTI_GPU"
    assert arguments[arguments.index("--num_processes") + 1] == "12"
    assert arguments[arguments.index("--machine_rank") + 1] == "2"
    assert environment["ACCELERATE_USE_CPU"] == "true"


def test_entries_of_a_config_reach_the_launcher(tmp_path: Path) -> None:
    command(tmp_path, accelerate={"fsdp_config": {"fsdp_offload_params": True}}, processes=2)
    assert config(tmp_path)["distributed_type"] == "FSDP"
    assert config(tmp_path)["fsdp_config"]["fsdp_offload_params"] is True
    command(tmp_path, accelerate={"deepspeed_config": {"zero_stage": 2}}, machines=2)
    assert config(tmp_path)["deepspeed_config"]["deepspeed_multinode_launcher"] == "standard"


@pytest.mark.parametrize(
    ("entries", "named"),
    [
        ({"num_machines": 4}, "num_machines is for the gang"),
        ({"main_process_ip": "10.0.0.9"}, "main_process_ip is for the gang"),
        ({"mixed_precision": "bf16"}, "mixed_precision is the recipe's"),
        ({"deepspeed_config": {"deepspeed_hostfile": "hosts"}}, "deepspeed_hostfile"),
        ({"deepspeed_config": {}, "fsdp_config": {}}, "either"),
    ],
)
def test_an_entry_that_a_job_may_not_give_is_refused_by_name(
    tmp_path: Path, entries: dict[str, Any], named: str
) -> None:
    with pytest.raises(JobFailure, match=named):
        command(tmp_path, accelerate=entries)


def test_sharding_needs_accelerators(tmp_path: Path) -> None:
    with pytest.raises(JobFailure, match="accelerators"):
        command(tmp_path, accelerate={"fsdp_config": {}}, cpu=True)


def test_the_launcher_and_the_program_alone_end_with_the_same_bits(
    tmp_path: Path, fork_server: ForkServer
) -> None:
    base = tiny_encoder(tmp_path / "base")
    alone = work_folder(tmp_path / "alone", data={"train": labelled(60)}, base=base, train=RECIPE)
    assert alone.run(fork_server) == shutdown.DONE
    run = work_folder(tmp_path / "W", data={"train": labelled(60)}, base=base, train=RECIPE)
    assert ended(run.launch()) == 0, run.log
    assert weights(run.folder / "result") == weights(alone.folder / "result")


def test_two_machines_killed_and_resumed_end_with_the_bits_of_two_processes(
    tmp_path: Path, fork_server: ForkServer
) -> None:
    """Each host has its own work folder and receives the files of all hosts."""
    base = tiny_encoder(tmp_path / "base")
    data = {"train": labelled(60)}
    alone = work_folder(tmp_path / "alone", data=data, base=base, train=RECIPE, processes=2)
    assert alone.run(fork_server) == shutdown.DONE
    hosts = [
        work_folder(tmp_path / f"host{rank}", data=data, base=base, train=RECIPE, machines=2)
        for rank in range(2)
    ]
    port = free_port()
    launched = [host.launch(rank=rank, port=port) for rank, host in enumerate(hosts)]
    wait_until(lambda: hosts[0].curve().get(7) is not None, seconds=120)
    for each in launched:
        os.killpg(each.pid, signal.SIGKILL)
    for host, other in itertools.product(hosts, hosts):
        checkpoint = other.folder / "checkpoints" / "step-000000005"
        shutil.copytree(checkpoint, host.folder / "resume", dirs_exist_ok=True)
    port = free_port()
    launched = [host.launch(rank=rank, port=port) for rank, host in enumerate(hosts)]
    assert [ended(each) for each in launched] == [0, 0], hosts[0].log
    assert weights(hosts[0].folder / "result") == weights(alone.folder / "result")
    assert hosts[0].curve() == alone.curve()
    assert not (hosts[1].folder / "result").exists()
    assert hosts[1].messages("done", rank=1)
