"""The trained model as a folder that can be used at once: weights, config, tokenizer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from transformers import PreTrainedTokenizerBase

from jobs.models import inspection, signatures
from jobs.models.signatures import Signature
from workers.training import model_init
from workers.training.checkpoint import TrainState
from workers.training.run_config import Order


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
    signatures.write(draft, _signature(draft, order=order))
    shutil.rmtree(order.result, ignore_errors=True)
    draft.rename(order.result)


def _complete_adapter(folder: Path, *, module: Any, order: Order) -> None:
    """What peft leaves out: the whole model's config, and a base that is no path of this host."""
    config = module.get_base_model().config
    config.architectures = [type(module.get_base_model()).__name__]
    config.save_pretrained(folder)
    if module.get_base_model().can_generate():  # the tokens that end a text may be new
        generation = module.get_base_model().generation_config
        generation.to_json_file(folder / "generation_config.json")
    path = folder / "adapter_config.json"
    adapter = json.loads(path.read_bytes())
    adapter["base_model_name_or_path"] = order.base_reference
    path.write_text(json.dumps(adapter, indent=2, sort_keys=True) + "\n")
    (folder / "README.md").unlink(missing_ok=True)


def _signature(folder: Path, *, order: Order) -> Signature:
    """What the planner decided, with what is known only now: labels, window and template."""
    decided = order.signature
    return decided.model_copy(
        update={
            "labels": order.labels,
            "max_tokens": model_init.window(order),
            "chat_template": inspection.chat_template(folder) if decided.chat else None,
        }
    )
