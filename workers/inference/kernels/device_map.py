"""A model that is too large for one accelerator, over several: Accelerate's device map.

Whole layers lie on one device each, those that follow each other side by side, and a batch goes
from device to device with them. Only one computes at a time: that makes room and costs speed, so a
model that one device holds stays on one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from accelerate import dispatch_model, infer_auto_device_map
from accelerate.utils import compute_module_sizes, get_balanced_memory
from transformers import PreTrainedModel

from jobs.errors import ModelFailure

ROOM = 0.8
"""Share of the free memory of an accelerator that weights may take; the rest is for batches."""

DeviceMap = dict[str, int | str | torch.device]

GIB = 2**30


def free() -> dict[int, int]:
    """Free bytes of each accelerator that this process has, by its number; of CPU there is none."""
    return {each: torch.cuda.mem_get_info(each)[0] for each in range(torch.cuda.device_count())}


def placed(
    model: PreTrainedModel, *, device: torch.device, free: Mapping[int, int]
) -> PreTrainedModel:
    """The model on the device, or over all that have memory free if it is too large for that one.

    Raises ``ModelFailure`` if it is too large for several together. For one there is no such
    judgement: what does not fit there runs out of memory.
    """
    if len(free) <= 1 or _bytes(model) <= ROOM * free[device.index or 0]:
        one: Any = model
        return cast("PreTrainedModel", one.to(device))
    return dispatched(model, device_map(model, free=free))


def device_map(model: PreTrainedModel, *, free: Mapping[int, int]) -> DeviceMap:
    """Which part lies on which device, weights evenly divided. Raises ``ModelFailure``."""
    room = {each: int(ROOM * size) for each, size in free.items()}
    whole: list[str] = sorted(model._no_split_modules or ())  # noqa: SLF001 (no public name)
    found: DeviceMap = infer_auto_device_map(
        model,
        max_memory=get_balanced_memory(model, max_memory=room, no_split_module_classes=whole),
        no_split_module_classes=whole,
    )
    if not set(found.values()) <= set(free):
        raise ModelFailure(
            f"the model's weights take {_bytes(model) / GIB:.1f} GiB; the {len(free)} accelerators "
            f"of this worker's process have {sum(room.values()) / GIB:.1f} GiB for them: give it "
            "more (NIGHTSHIFT_WORKER_DEVICES), or submit the job to a pool that has more",
            code="model_needs_devices",
        )
    return found


def dispatched(
    model: PreTrainedModel, parts: DeviceMap, *, offload: str | None = None
) -> PreTrainedModel:
    """The model with its parts on their devices; ``offload`` is a folder for those on ``disk``.

    Numbers that come in are moved to the part that reads them, and an output to where its input
    was; a cache stays where it was made.
    """
    kept: Any = model._skip_keys_device_placement  # noqa: SLF001 (no public name)
    made = dispatch_model(model, parts, skip_keys=kept, offload_dir=offload)
    return cast("PreTrainedModel", made)


def is_spread(model: PreTrainedModel) -> bool:
    """Whether its parts lie on several devices."""
    return len(set(getattr(model, "hf_device_map", {}).values())) > 1


def _bytes(model: PreTrainedModel) -> int:
    sizes: dict[str, int] = compute_module_sizes(model)
    return int(sizes[""])
