"""Linear layers on CPU with weights that are prepacked once for oneDNN (decision 0013).

A plain layer has its weights in rows and reorders them in every call; and the activation that
follows reads and writes all of its output once more. Here the weights are reordered when the model
is loaded, and an exact GELU is computed on the product while that is in the cache. Sums are in
another order than in a plain layer, so the last bits differ; there are no gradients. The operators
called here are those that ``torch.compile`` calls when it freezes a model's weights.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.activations import GELUActivation

FUSED_ACTIVATIONS = (("dense", "intermediate_act_fn"), ("lin1", "activation"))
"""Names of a linear layer and of the activation that reads its output, and nothing else."""


class PrepackedLinear(nn.Module):
    """A linear layer for inference; only oneDNN can read its ``weight``."""

    def __init__(self, plain: nn.Linear, *, activation: Literal["none", "gelu"] = "none") -> None:
        super().__init__()
        self.weight = _operators()._reorder_linear_weight(plain.weight.detach(), None)  # noqa: SLF001
        self.bias = plain.bias
        self.activation = activation

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """(..., in) to (..., out)."""
        output: torch.Tensor = _operators()._linear_pointwise(  # noqa: SLF001
            states, self.weight, self.bias, self.activation, [], "none"
        )
        return output


def supports(model: PreTrainedModel) -> bool:
    """Whether this build of PyTorch has oneDNN, and the model computes in float32 on CPU."""
    backend: Any = torch.backends.mkldnn
    return (
        model.device.type == "cpu"
        and model.dtype is torch.float32
        and backend.is_available()
        and hasattr(_operators(), "_linear_pointwise")
    )


def install(model: PreTrainedModel) -> None:
    """Replace the linear layers over tokens, in a model that ``supports`` allows.

    Pooler and head stay plain: the number of their rows differs from batch to batch, and oneDNN
    keeps a compiled program for each number of rows.
    """
    for module, layer, activation in list(activated(model)):
        setattr(module, layer, PrepackedLinear(getattr(module, layer), activation="gelu"))
        setattr(module, activation, nn.Identity())
    for module in within_stacks(model):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear:
                setattr(module, name, PrepackedLinear(child))


def activated(model: PreTrainedModel) -> Iterator[tuple[nn.Module, str, str]]:
    """Modules with a linear layer that an exact GELU follows, and the names of both in it."""
    for module in within_stacks(model):
        for layer, activation in FUSED_ACTIVATIONS:
            plain = getattr(module, layer, None)
            if type(plain) is nn.Linear and _is_exact_gelu(getattr(module, activation, None)):
                yield module, layer, activation


def first_block(model: PreTrainedModel) -> list[nn.Linear]:
    """The linear layers of a model's first block; empty for a model without a stack of blocks."""
    first = next((stack[0] for stack in _stacks(model) if len(stack)), None)
    if first is None:
        return []
    return [each for each in first.modules() if type(each) is nn.Linear]


def _stacks(model: PreTrainedModel) -> list[nn.ModuleList]:
    return [each for each in model.base_model.modules() if isinstance(each, nn.ModuleList)]


def within_stacks(model: PreTrainedModel) -> Iterator[nn.Module]:
    """All modules of the model's blocks, without its embeddings, pooler and head."""
    return itertools.chain.from_iterable(stack.modules() for stack in _stacks(model))


def _is_exact_gelu(activation: Any) -> bool:
    """False for approximations such as the one by tanh."""
    return type(activation) is GELUActivation and activation.act is nn.functional.gelu


def _operators() -> Any:
    return torch.ops.mkldnn
