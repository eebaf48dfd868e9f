"""Loads a model's folder: tokenizer and weights on the device, safetensors only, no remote code.

Keeps promise P10.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from accelerate import PartialState
from accelerate.utils import is_bf16_available
from transformers import (
    AutoConfig,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from jobs.errors import ModelFailure
from jobs.kinds import ClassifyOptions, Options
from jobs.models.inspection import HEAD_TENSORS
from jobs.settings import Settings
from workers import (
    architectures,  # noqa: F401 (registers them with the auto classes)
    threads,
)
from workers.inference import row_isolation
from workers.inference.batching import autotune
from workers.inference.batching.memory import is_out_of_memory
from workers.inference.batching.token_budget import TokenBudget
from workers.inference.kernels import device_map, lora, quantization
from workers.inference.probes import completeness

MISMATCH = "ignore_mismatched_sizes"
"""In the library's error for a tensor whose shape is not that of the config."""

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
CPU_BUDGET = 1_024
ACCELERATOR_BUDGET = 16_384

SAFE = {"trust_remote_code": False, "local_files_only": True}


def device() -> torch.device:
    """The device that Accelerate gives this process: cuda, mps or cpu."""
    return cast("torch.device", PartialState().device)


def dtype(options: Options, *, device: torch.device) -> torch.dtype:
    """The dtype to compute in; ``auto`` is float32 on CPU, bfloat16 where the device has it."""
    if options.dtype != "auto":
        return DTYPES[options.dtype]
    if device.type != "cpu" and is_bf16_available(ignore_tpu=True):
        return torch.bfloat16
    return torch.float32


def budget(settings: Settings, *, device: torch.device) -> int:
    """Tokens in a batch; padding counts where it is computed."""
    default = CPU_BUDGET if device.type == "cpu" else ACCELERATOR_BUDGET
    return settings.batch_tokens or default


def calibrated(
    settings: Settings, *, model: PreTrainedModel, digest: str, variant: str
) -> TokenBudget:
    """The budget that is fastest for this model, with a trial if it is not known."""
    size = autotune.size_or_trial(settings, model=model, digest=digest, variant=variant)
    if isinstance(size, int):
        return TokenBudget(size)
    return TokenBudget(budget(settings, device=model.device), trial=size)


def use_threads(settings: Settings) -> None:
    """Set torch's CPU threads to this process's share, if they are not set to it."""
    share = threads.share(settings)
    if torch.get_num_threads() != share:
        torch.set_num_threads(share)


def tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The folder's tokenizer. Raises ``ModelFailure``."""
    auto: Any = AutoTokenizer
    try:
        return cast("PreTrainedTokenizerBase", auto.from_pretrained(folder, **SAFE))
    except BaseException as error:  # the library raises nearly anything for a bad file
        row_isolation.check(error)
        raise ModelFailure(
            f"the tokenizer cannot be loaded: {_first_line(error)}", code="model_no_tokenizer"
        ) from error


def model(folder: Path, *, auto: Any, options: Options) -> PreTrainedModel:
    """The model for a job: on this process's device or devices, in the options' dtype."""
    own = device()
    whole = _complete(folder, auto=auto, dtype=dtype(options, device=own))
    placed: Any = device_map.place(whole, device=own, free=device_map.free_memory())
    evaluated = cast("PreTrainedModel", placed.eval())
    if isinstance(options, ClassifyOptions) and options.int8:
        return quantization.quantized(evaluated)
    return evaluated


def module(folder: Path, *, auto: Any, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """The folder's model of an auto class, on the device, in evaluation mode.

    Attention is the library's default, SDPA wherever the model supports it. Raises
    ``ModelFailure``; running out of memory is not the model's fault and is raised as it is.
    """
    whole: Any = _complete(folder, auto=auto, dtype=dtype)
    return cast("PreTrainedModel", whole.to(device).eval())


def _complete(folder: Path, *, auto: Any, dtype: torch.dtype) -> PreTrainedModel:
    loaded, missing = assembled(folder, auto=auto, dtype=dtype)
    check_complete(loaded, missing, whose="the")
    return loaded


def assembled(
    folder: Path, *, auto: Any, dtype: torch.dtype, config: PreTrainedConfig | None = None
) -> tuple[PreTrainedModel, set[str]]:
    """The folder's model, an adapter merged into its base, and the tensors that no file has.

    With a ``config`` the model has the config's shape: a head that does not fit is among the
    missing tensors, and initialized again. Raises as ``module`` does.
    """
    logs: Any = transformers_logging
    logs.disable_progress_bar()
    try:
        if lora.is_adapter(folder):
            return _adapted(folder, auto=auto, dtype=dtype, config=config)
        return _from_pretrained(folder, auto=auto, dtype=dtype, config=config)
    except ModelFailure:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        why = _mismatch(folder, auto=auto) if MISMATCH in str(error) else _first_line(error)
        raise ModelFailure(f"the model cannot be loaded: {why}") from error


def _adapted(
    folder: Path, *, auto: Any, dtype: torch.dtype, config: PreTrainedConfig | None
) -> tuple[PreTrainedModel, set[str]]:
    """Merged in float32: a small difference added to a bfloat16 weight would be rounded away."""
    configs: Any = AutoConfig
    config = config or configs.from_pretrained(folder, **SAFE)
    base, missing = assembled(
        lora.base_folder(folder), auto=auto, dtype=torch.float32, config=config
    )
    missing = missing - lora.replaced_tensors(folder, model=base)
    model: Any = lora.merge(base, folder)
    if (folder / "generation_config.json").is_file():
        generation: Any = GenerationConfig
        model.generation_config = generation.from_pretrained(folder)
    return model.to(dtype), missing


def _from_pretrained(
    folder: Path, *, auto: Any, dtype: torch.dtype, config: PreTrainedConfig | None
) -> tuple[PreTrainedModel, set[str]]:
    shape = {} if config is None else {"config": config, "ignore_mismatched_sizes": True}
    model, report = auto.from_pretrained(
        folder, dtype=dtype, use_safetensors=True, output_loading_info=True, **shape, **SAFE
    )
    return model, set(report["missing_keys"]) | {each[0] for each in report["mismatched_keys"]}


def _mismatch(folder: Path, *, auto: Any) -> str:
    """A tensor whose shape is not that of the config, and both shapes; no weights are loaded."""
    _, report = auto.from_pretrained(
        folder,
        device_map="meta",
        use_safetensors=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        **SAFE,
    )
    name, stored, wanted = min(report["mismatched_keys"])
    message = f"{name} has the shape {tuple(stored)}, and its config.json asks for {tuple(wanted)}"
    if name.startswith(HEAD_TENSORS):
        message += f": id2label has {wanted[0]} names, and the head is of size {stored[0]}"
    return message


def check_complete(model: PreTrainedModel, missing: set[str], *, whose: str) -> None:
    """Raise ``ModelFailure`` where outputs depend on missing tensors, which are random."""
    needed = completeness.needed(model, missing)
    if needed:
        raise ModelFailure(
            f"{whose} weights file lacks {len(needed)} of the model's tensors, such as {needed[0]}"
        )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
