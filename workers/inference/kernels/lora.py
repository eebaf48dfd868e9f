"""LoRA adapters: a folder with the adapter's weights, and in ``base`` the folder of its base model.

    adapter_config.json        as peft writes it
    adapter_model.safetensors  the adapter, and the head where one was trained
    config.json, tokenizer     of the whole model, its labels included
    base                       the base's folder, which may be an adapter too

Only LoRA: it merges into the weights, so that a merged model is a model like any other.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from peft import PeftModel
from safetensors import safe_open
from transformers import PreTrainedModel

from jobs.errors import ModelFailure

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
"""What peft puts before the base's own tensor names."""


def is_adapter(folder: Path) -> bool:
    """Whether the folder holds an adapter and not a whole model."""
    return (folder / CONFIG).is_file()


def base_folder(folder: Path) -> Path:
    """The folder of the adapter's base. Raises ``ModelFailure`` for an adapter we cannot load."""
    _check_lora(folder)
    if not (folder / WEIGHTS).is_file():
        raise ModelFailure(
            f"the adapter's weights must be safetensors: there is no {WEIGHTS} in {folder}",
            code="model_not_safetensors",
        )
    base = folder / "base"
    if not (base / "config.json").is_file():
        raise ModelFailure(
            f"the model is an adapter, and its base is not here: {base} must be the base's folder",
            code="model_missing",
        )
    return base


def merge(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """The base with the adapter's weights merged into its own.

    Adapter tensors of another shape are left out: in a chain of adapters the last head counts.
    """
    adapted: Any = PeftModel.from_pretrained(
        model, str(folder), torch_device=str(model.device), ignore_mismatched_sizes=True
    )
    return cast("PreTrainedModel", adapted.merge_and_unload(safe_merge=True))


def replaced_tensors(folder: Path, *, model: PreTrainedModel) -> set[str]:
    """Names of the model's tensors that the adapter's file replaces as a whole: a trained head."""
    own = model.state_dict()
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        names = list(file.keys())
        shapes = {name.removeprefix(PREFIX): file.get_slice(name).get_shape() for name in names}
    return {
        name for name, shape in shapes.items() if name in own and list(own[name].shape) == shape
    }


def _check_lora(folder: Path) -> None:
    try:
        kind = json.loads((folder / CONFIG).read_bytes()).get("peft_type")
    except (OSError, ValueError, AttributeError) as error:
        raise ModelFailure(f"{CONFIG} of the model is not readable JSON: {error}") from error
    if kind != "LORA":
        raise ModelFailure(
            f"an adapter must be LORA, which merges into its base, not {kind!r} ({CONFIG})",
            code="model_unsupported",
        )
