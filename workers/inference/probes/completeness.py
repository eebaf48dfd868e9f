"""Whether a model is complete: which tensors that no file gave its answers depend on.

Such tensors are random numbers, drawn anew at each load. Autograd tells, by one small forward pass,
whether they reach an output that is read; nothing is judged by a tensor's name. What the pass does
not call cannot be judged, and counts as needed: an expert that no token chose, a branch for other
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

UNREAD = frozenset({"pooler_output"})
"""Outputs that no kind of job reads; of an encoder, its last hidden state is read."""


def needed(model: PreTrainedModel, missing: set[str]) -> list[str]:
    """Names of missing tensors that the model's outputs depend on, or may depend on, in order.

    All of them for a model that cannot compute the small pass.
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
    asked = {
        name: each
        for name, each in model.named_parameters(remove_duplicate=False)
        if name in missing and each.is_floating_point()
    }
    with _tracked(model, asked) as called, torch.enable_grad():
        output = model(**_inputs(model))
        read = [each.float().sum() for each in _outputs(output) if each.requires_grad]
        reached = (
            torch.autograd.grad(read, list(asked.values()), allow_unused=True)
            if read
            else [None] * len(asked)
        )
    return {
        name
        for name, gradient in zip(asked, reached, strict=True)
        if gradient is None and _owner(name) in called
    }


@contextmanager
def _tracked(model: PreTrainedModel, asked: Mapping[str, torch.Tensor]) -> Iterator[set[str]]:
    """Gradients for these parameters alone; the names of their modules that have been called."""
    called: set[str] = set()
    before = [(each, each.requires_grad) for each in model.parameters()]
    hooks = [
        model.get_submodule(owner).register_forward_hook(lambda *_, owner=owner: called.add(owner))
        for owner in {_owner(name) for name in asked}
    ]
    try:
        model.requires_grad_(requires_grad=False)
        for each in asked.values():
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
        if name not in UNREAD and isinstance(each, torch.Tensor)
    ]


def _inputs(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """One row as the model's class takes it."""
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
    """Different tokens, and at the end the one by which heads of encoder-decoders find it."""
    table: Any = model.get_input_embeddings()
    ending = getattr(model.config, "eos_token_id", None)
    ids = [each for each in range(table.num_embeddings) if each != ending][: TOKENS - 1]
    return torch.tensor([[*ids, ending if isinstance(ending, int) else ids[-1]]])


def _image(config: Any) -> torch.Tensor:
    size = config.image_size
    height, width = (size, size) if isinstance(size, int) else tuple(size)
    return torch.zeros(1, config.num_channels, height, width)


def _owner(name: str) -> str:
    return name.rpartition(".")[0]
