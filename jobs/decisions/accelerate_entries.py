"""Which entries of an Accelerate config file a recipe may have, and why it may not have the others.

The gang sets machines, ranks and addresses. What the recipe has a field for is set in that field:
of two values one would be ignored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jobs.errors import BadSpec

TAKEN = frozenset(
    {"debug", "deepspeed_config", "dynamo_config", "enable_cpu_affinity", "fsdp_config"}
)
SHARDING = ("deepspeed_config", "fsdp_config")

_GANG = "which machines, ranks, processes and addresses take part is the gang's to decide"
_TPU = "no host here is a TPU pod"
_PRECISION = "set `train.mixed_precision`"

REFUSED = {
    "command_file": _TPU,
    "commands": _TPU,
    "compute_environment": "a run always takes this installation's own hosts",
    "distributed_type": "it follows from `fsdp_config` or `deepspeed_config`",
    "downcast_bf16": _TPU,
    "gpu_ids": _GANG,
    "machine_rank": _GANG,
    "main_process_ip": _GANG,
    "main_process_port": _GANG,
    "main_training_function": "the training program is this installation's own",
    "megatron_lm_config": "models here are trained with FSDP or DeepSpeed, not with Megatron-LM",
    "mixed_precision": _PRECISION,
    "mpirun_config": _GANG,
    "num_machines": f"{_GANG}; ask for a number of hosts with `machines`",
    "num_processes": _GANG,
    "parallelism_config": _GANG,
    "rdzv_backend": _GANG,
    "same_network": _GANG,
    "tpu_env": _TPU,
    "tpu_name": _TPU,
    "tpu_use_cluster": _TPU,
    "tpu_use_sudo": _TPU,
    "tpu_vm": _TPU,
    "tpu_zone": _TPU,
    "use_cpu": "a host takes the devices that it has",
}
REFUSED_OF_DEEPSPEED = {
    "deepspeed_config_file": "it would be a file of one host; give its entries instead",
    "deepspeed_exclusion_filter": _GANG,
    "deepspeed_hostfile": _GANG,
    "deepspeed_inclusion_filter": _GANG,
    "deepspeed_multinode_launcher": _GANG,
    "fp16": _PRECISION,
    "gradient_accumulation_steps": "set `train.batch_rows` and `train.batch_tokens`",
    "gradient_clipping": "set `train.max_grad_norm`",
    "mixed_precision": _PRECISION,
}


def check(entries: Mapping[str, Any]) -> None:
    """Raise ``BadSpec`` for entries that a recipe may not have."""
    for path, reason in _refused(entries):
        raise _bad(path, f"must not be given: {reason}")
    for name in entries:
        if name not in TAKEN:
            raise _bad(name, f"no such entry; there are {', '.join(sorted(TAKEN))}")
    if all(name in entries for name in SHARDING):
        raise _bad("fsdp_config", "either this or deepspeed_config must be given, not both")


def without_refused(entries: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """What is left of a whole config file for a recipe, and the paths of what is not."""
    dropped = sorted(path for path, _ in _refused(entries))
    left = {name: value for name, value in entries.items() if name not in dropped}
    if isinstance(left.get("deepspeed_config"), Mapping):
        left["deepspeed_config"] = {
            name: value
            for name, value in left["deepspeed_config"].items()
            if name not in REFUSED_OF_DEEPSPEED
        }
    return left, dropped


def _refused(entries: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield from ((name, REFUSED[name]) for name in entries if name in REFUSED)
    nested = entries.get("deepspeed_config")
    if isinstance(nested, Mapping):
        for name in nested:
            if name in REFUSED_OF_DEEPSPEED:
                yield f"deepspeed_config.{name}", REFUSED_OF_DEEPSPEED[name]


def _bad(path: str, message: str) -> BadSpec:
    param = f"train.accelerate.{path}"
    return BadSpec(f"{param}: {message}", param=param)
