"""A model that is too large for one accelerator, over several: Accelerate's device map.

Each layer is on one device as a whole, consecutive layers are on the same device, and a batch moves
from device to device with them. Only one device computes at a time: that makes room and costs
speed, so a model that fits on one device stays on one (decision 0016).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from accelerate import dispatch_model, infer_auto_device_map
from accelerate.utils import compute_module_sizes, get_balanced_memory
from transformers import PreTrainedModel

from jobs.errors import ModelFailure

WEIGHTS_SHARE = 0.8
"""Share of an accelerator's free memory that weights may take; the rest is for batches."""

DeviceMap = dict[str, int | str | torch.device]

GIB = 2**30


def free_memory() -> dict[int, int]:
    """Free bytes of each accelerator that this process has, by its index; empty on CPU."""
    return {index: torch.cuda.mem_get_info(index)[0] for index in range(torch.cuda.device_count())}


def place(
    model: PreTrainedModel, *, device: torch.device, free: Mapping[int, int]
) -> PreTrainedModel:
    """The model on the device, or over all devices in ``free`` if it is too large for that one.

    Raises ``ModelFailure`` if it is too large for several together. For a single device there is no
    such check: a model that does not fit runs out of memory.
    """
    if len(free) <= 1 or _weight_bytes(model) <= WEIGHTS_SHARE * free[device.index or 0]:
        one: Any = model
        return cast("PreTrainedModel", one.to(device))
    return dispatch(model, device_map(model, free=free))


def device_map(model: PreTrainedModel, *, free: Mapping[int, int]) -> DeviceMap:
    """The device of each submodule, weights evenly divided. Raises ``ModelFailure``."""
    limits = {index: int(WEIGHTS_SHARE * size) for index, size in free.items()}
    whole: list[str] = sorted(model._no_split_modules or ())  # noqa: SLF001 (no public name)
    devices: DeviceMap = infer_auto_device_map(
        model,
        max_memory=get_balanced_memory(model, max_memory=limits, no_split_module_classes=whole),
        no_split_module_classes=whole,
    )
    if not set(devices.values()) <= set(free):
        raise ModelFailure(
            f"the model's weights take {_weight_bytes(model) / GIB:.1f} GiB; the {len(free)} "
            f"accelerators of this worker's process have {sum(limits.values()) / GIB:.1f} GiB for "
            "them: give it more (NIGHTSHIFT_WORKER_DEVICES), or submit the job to a pool that has "
            "more",
            code="model_needs_devices",
        )
    return devices


def dispatch(
    model: PreTrainedModel, devices: DeviceMap, *, offload: str | None = None
) -> PreTrainedModel:
    """The model with its submodules on their devices; ``offload`` is a folder for ``disk``.

    Inputs are moved to the submodule that reads them, and outputs back to the device of the inputs;
    a KV cache stays where it was created.
    """
    cache_names: Any = model._skip_keys_device_placement  # noqa: SLF001 (no public name)
    dispatched = dispatch_model(model, devices, skip_keys=cache_names, offload_dir=offload)
    return cast("PreTrainedModel", dispatched)


def is_spread(model: PreTrainedModel) -> bool:
    """Whether the model's submodules are on several devices."""
    return len(set(getattr(model, "hf_device_map", {}).values())) > 1


def _weight_bytes(model: PreTrainedModel) -> int:
    sizes: dict[str, int] = compute_module_sizes(model)
    return int(sizes[""])
