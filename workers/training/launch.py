"""The command that launches the training program on a host, and a rank's network interface.

Imports no torch, so that the agent does not load it. The launcher is always ``accelerate launch``
with a config file of its own, so that no config in a home folder applies.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

import psutil

from jobs.errors import JobFailure
from workers.threads import OPENMP, cores
from workers.training import shutdown

PROGRAM = "workers.training.train"

ALLOWED = frozenset(
    {"debug", "deepspeed_config", "dynamo_config", "enable_cpu_affinity", "fsdp_config"}
)
"""Entries of an Accelerate config that a job may give."""

OWNED = {
    "mixed_precision": "the recipe's (train.mixed_precision)",
    "fp16": "the recipe's (train.mixed_precision)",
    "gradient_accumulation_steps": "the recipe's (train.batch_rows and train.batch_tokens)",
    "gradient_clipping": "the recipe's (train.max_grad_norm)",
    "deepspeed_config_file": "a file of one host: give its entries instead",
}
"""Entries that another part of the spec decides; all others that are not allowed are the gang's."""

LAUNCHER_ENTRIES = (
    "deepspeed_hostfile",
    "deepspeed_inclusion_filter",
    "deepspeed_exclusion_filter",
)


def command(
    *,
    machines: int,
    rank: int,
    processes: int,
    address: str,
    port: int,
    mixed_precision: str,
    accelerate: dict[str, Any] | None,
    run: Path,
    cpu: bool,
) -> tuple[list[str], dict[str, str]]:
    """Arguments and extra environment variables of the launcher on one host; writes its config.

    ``processes`` run on this host, which is number ``rank`` of ``machines``; ``address`` and
    ``port`` are rank 0's, new for each run.

    Raises ``JobFailure`` for entries that a job may not give.
    """
    entries = _checked(accelerate or {}, cpu=cpu)
    total = machines * processes
    config = run.with_name("accelerate.json")
    config.write_text(json.dumps(_config(entries, total=total) | {"use_cpu": cpu}, indent=2))
    threads = os.environ.get(OPENMP) or str(max(1, cores() // processes))
    arguments = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
    arguments += ["--num_machines", str(machines), "--machine_rank", str(rank)]
    arguments += ["--num_processes", str(total), "--mixed_precision", mixed_precision]
    arguments += ["--main_process_ip", address, "--main_process_port", str(port)]
    arguments += ["--num_cpu_threads_per_process", threads]
    arguments += ["--module", PROGRAM, str(run)]
    return arguments, {"ACCELERATE_USE_CPU": str(cpu).lower(), shutdown.LAUNCHED: "1"}


def _checked(entries: dict[str, Any], *, cpu: bool) -> dict[str, Any]:
    nested = entries.get("deepspeed_config") or {}
    refused = sorted({*(entries.keys() - ALLOWED), *(nested.keys() & {*OWNED, *LAUNCHER_ENTRIES})})
    if refused:
        reasons = (f"{name} is {OWNED.get(name, 'for the gang to decide')}" for name in refused)
        raise JobFailure(
            f"train.accelerate takes {', '.join(sorted(ALLOWED))}; {'; '.join(reasons)}",
            code="accelerate_config",
        )
    sharding = sorted(entries.keys() & {"fsdp_config", "deepspeed_config"})
    if cpu and sharding:
        raise JobFailure(
            f"{sharding[0]} needs hosts with accelerators, and these have none",
            code="accelerate_config",
        )
    if len(sharding) > 1:
        raise JobFailure(
            "train.accelerate takes either fsdp_config or deepspeed_config, and has both",
            code="accelerate_config",
        )
    return entries


def _config(entries: dict[str, Any], *, total: int) -> dict[str, Any]:
    base = {"compute_environment": "LOCAL_MACHINE", "num_processes": total}
    if "fsdp_config" in entries:
        shards = {"fsdp_version": 2, "fsdp_state_dict_type": "SHARDED_STATE_DICT"}
        shards |= entries["fsdp_config"]
        return base | entries | {"distributed_type": "FSDP", "fsdp_config": shards}
    if "deepspeed_config" in entries:
        # Every host starts its own ranks, so that no host needs ssh to another.
        stages = entries["deepspeed_config"] | {"deepspeed_multinode_launcher": "standard"}
        return base | entries | {"distributed_type": "DEEPSPEED", "deepspeed_config": stages}
    return base | entries | {"distributed_type": "MULTI_GPU" if total > 1 else "NO"}


def use_interface() -> None:
    """Set gloo's and NCCL's network interface to the one that leads to rank 0.

    By default they take the interface of the host's own name, which may not reach other hosts.
    """
    address = os.environ.get("MASTER_ADDR")
    if address is None:
        return
    name = _interface(address)
    if name is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", name)


def _interface(address: str) -> str | None:
    """The interface that packets to ``address`` leave through."""
    try:
        candidates = socket.getaddrinfo(address, 9, type=socket.SOCK_DGRAM)
    except OSError:
        return None
    for objective, kind, protocol, _, target in candidates:
        with socket.socket(objective, kind, protocol) as probe:
            try:
                probe.connect(target)
            except OSError:
                continue
            source = probe.getsockname()[0]
        for name, addresses in psutil.net_if_addrs().items():
            if any(each.address.partition("%")[0] == source for each in addresses):
                return name
    return None


def complete_plugins(accelerator: Any, *, max_grad_norm: float) -> None:
    """Set what DeepSpeed would otherwise read from a data loader."""
    plugin = getattr(accelerator.state, "deepspeed_plugin", None)
    if plugin is None:
        return
    plugin.deepspeed_config["train_micro_batch_size_per_gpu"] = 1
    plugin.deepspeed_config["gradient_accumulation_steps"] = 1
    plugin.deepspeed_config["gradient_clipping"] = max_grad_norm
