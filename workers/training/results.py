"""The trained model as a folder that can be used at once: weights, config, tokenizer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from transformers import PreTrainedTokenizerBase

from workers.training.orders import Order
from workers.training.state import TrainState

NOTE = "nightshift.json"


def save(state: TrainState, *, tokenizer: PreTrainedTokenizerBase, order: Order) -> None:
    """Write ``result``: whole weights, or an adapter beside the whole model's config."""
    accelerator: Accelerator = state.accelerator
    weights = accelerator.get_state_dict(state.model) if state.sharded else None
    if not accelerator.is_main_process:
        return
    draft = order.result.with_name("result.tmp")
    shutil.rmtree(draft, ignore_errors=True)
    module: Any = state.module
    if order.spec.lora is not None and order.spec.lora.merge:
        module, weights = module.merge_and_unload(), None
    module.save_pretrained(draft, state_dict=weights)
    tokenizer.save_pretrained(draft)
    if order.spec.lora is not None and not order.spec.lora.merge:
        _complete_adapter(draft, module=module, order=order)
    _note(draft, order=order)
    shutil.rmtree(order.result, ignore_errors=True)
    draft.rename(order.result)


def _complete_adapter(folder: Path, *, module: Any, order: Order) -> None:
    """What peft leaves out: the whole model's config, and a base that is no path of this host."""
    config = module.get_base_model().config
    config.architectures = [type(module.get_base_model()).__name__]
    config.save_pretrained(folder)
    path = folder / "adapter_config.json"
    adapter = json.loads(path.read_bytes())
    adapter["base_model_name_or_path"] = order.base_reference
    path.write_text(json.dumps(adapter, indent=2, sort_keys=True) + "\n")
    (folder / "README.md").unlink(missing_ok=True)


def _note(folder: Path, *, order: Order) -> None:
    note: dict[str, object] = {"task": order.spec.task, "multi_label": order.spec.multi_label}
    if (folder / "adapter_config.json").is_file():
        note["base"] = order.base_reference
    (folder / NOTE).write_text(json.dumps(note, indent=2) + "\n")
