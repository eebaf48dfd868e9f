"""Export of the trained model as a folder: weights, config, tokenizer and signature."""

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
from workers.training.run_config import RunConfig


def save(state: TrainState, *, tokenizer: PreTrainedTokenizerBase, run: RunConfig) -> None:
    """Write ``result``: all weights, or an adapter with the config of the whole model."""
    accelerator: Accelerator = state.accelerator
    weights = accelerator.get_state_dict(state.model) if state.sharded else None
    if not accelerator.is_main_process:
        return
    draft = run.result.with_name("result.tmp")
    shutil.rmtree(draft, ignore_errors=True)
    module: Any = state.module
    if run.spec.lora is not None and run.spec.lora.merge:
        module, weights = module.merge_and_unload(), None
    module.save_pretrained(draft, state_dict=weights)
    tokenizer.save_pretrained(draft)
    if run.spec.lora is not None and not run.spec.lora.merge:
        _complete_adapter(draft, module=module, run=run)
    signatures.write(draft, _signature(draft, run=run))
    shutil.rmtree(run.result, ignore_errors=True)
    draft.rename(run.result)


def _complete_adapter(folder: Path, *, module: Any, run: RunConfig) -> None:
    """Add what peft leaves out: the whole model's config, and the reference of the base."""
    config = module.get_base_model().config
    config.architectures = [type(module.get_base_model()).__name__]
    config.save_pretrained(folder)
    if module.get_base_model().can_generate():  # its end tokens may be new
        generation = module.get_base_model().generation_config
        generation.to_json_file(folder / "generation_config.json")
    path = folder / "adapter_config.json"
    adapter = json.loads(path.read_bytes())
    adapter["base_model_name_or_path"] = run.base_reference
    path.write_text(json.dumps(adapter, indent=2, sort_keys=True) + "\n")
    (folder / "README.md").unlink(missing_ok=True)


def _signature(folder: Path, *, run: RunConfig) -> Signature:
    """The planner's signature, completed with labels, window and chat template."""
    decided = run.signature
    return decided.model_copy(
        update={
            "labels": run.labels,
            "max_tokens": model_init.window(run),
            "chat_template": inspection.chat_template(folder) if decided.chat else None,
        }
    )
