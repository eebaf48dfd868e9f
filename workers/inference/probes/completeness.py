"""Whether a model's files are complete: which missing tensors its outputs depend on.

A tensor that no file has is random, and drawn again at each load. Autograd shows, in one small
forward pass, whether it reaches an output that is read; a tensor's name decides nothing. A module
that the pass does not call counts as needed: an expert that no token chose, a branch for other
inputs.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel

from workers.inference.batching.memory import is_out_of_memory

TOKENS = 8
"""Tokens of the small forward pass."""

UNUSED_OUTPUTS = frozenset({"pooler_output"})
"""Outputs that no kind of job reads; of an encoder, the last hidden state is read."""


def needed(model: PreTrainedModel, missing: set[str]) -> list[str]:
    """Names of missing tensors that the model's outputs depend on, or may depend on, sorted.

    All of them for a model that fails in the small forward pass.
    """
    if not missing:
        return []
    try:
        return sorted(missing - _unread(model, missing))
    except Exception as error:
        if is_out_of_memory(error):
            raise
        return sorted(missing)


def _unread(model: PreTrainedModel, missing: set[str]) -> set[str]:
    """Missing parameters whose module was called, and that no output depends on."""
    parameters = {
        name: each
        for name, each in model.named_parameters(remove_duplicate=False)
        if name in missing and each.is_floating_point()
    }
    with _tracked(model, parameters) as called, torch.enable_grad():
        output = model(**_inputs(model))
        sums = [each.float().sum() for each in _outputs(output) if each.requires_grad]
        gradients = (
            torch.autograd.grad(sums, list(parameters.values()), allow_unused=True)
            if sums
            else [None] * len(parameters)
        )
    return {
        name
        for name, gradient in zip(parameters, gradients, strict=True)
        if gradient is None and _owner(name) in called
    }


@contextmanager
def _tracked(model: PreTrainedModel, parameters: Mapping[str, torch.Tensor]) -> Iterator[set[str]]:
    """Gradients for these parameters only; the names of their modules that have been called."""
    called: set[str] = set()
    before = [(each, each.requires_grad) for each in model.parameters()]
    hooks = [
        model.get_submodule(owner).register_forward_hook(lambda *_, owner=owner: called.add(owner))
        for owner in {_owner(name) for name in parameters}
    ]
    try:
        model.requires_grad_(requires_grad=False)
        for each in parameters.values():
            each.requires_grad_()
        yield called
    finally:
        for hook in hooks:
            hook.remove()
        for each, trained in before:
            each.requires_grad = trained


def _outputs(output: Mapping[str, Any]) -> list[torch.Tensor]:
    return [
        each
        for name, each in output.items()
        if name not in UNUSED_OUTPUTS and isinstance(each, torch.Tensor)
    ]


def _inputs(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """One row, in the inputs that the model's class takes."""
    if model.main_input_name == "pixel_values":
        return {"pixel_values": _image(model.config)}
    names = inspect.signature(model.forward).parameters
    ids = _ids(model)
    inputs = {"input_ids": ids}
    if "attention_mask" in names:
        inputs["attention_mask"] = torch.ones_like(ids)
    if "decoder_input_ids" in names:
        inputs["decoder_input_ids"] = ids
    return inputs


def _ids(model: PreTrainedModel) -> torch.Tensor:
    """Different tokens, and last the one that heads of encoder-decoders look for."""
    embeddings: Any = model.get_input_embeddings()
    end = getattr(model.config, "eos_token_id", None)
    ids = [each for each in range(embeddings.num_embeddings) if each != end][: TOKENS - 1]
    return torch.tensor([[*ids, end if isinstance(end, int) else ids[-1]]])


def _image(config: Any) -> torch.Tensor:
    size = config.image_size
    height, width = (size, size) if isinstance(size, int) else tuple(size)
    return torch.zeros(1, config.num_channels, height, width)


def _owner(name: str) -> str:
    return name.rpartition(".")[0]
