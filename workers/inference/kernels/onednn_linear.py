"""Linear layers on CPU whose weights are laid out once as oneDNN reads them.

A plain layer multiplies by weights in rows, which are laid out anew in every call; and the
activation behind it reads and writes all its numbers once more. Here the layout is made when the
model is loaded, and an exact GELU is computed on the product while that is in the cache. Sums are
in another order than in a plain layer, so the last bits differ; there are no gradients. What is
called here is what ``torch.compile`` calls when it freezes a model's weights.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.activations import GELUActivation

ACTIVATED = (("dense", "intermediate_act_fn"), ("lin1", "activation"))
"""Names of a linear layer and of the activation of what it says, and of nothing else."""


class Laid(nn.Module):
    """A linear layer for inference; ``weight`` is opaque to all but oneDNN."""

    def __init__(self, plain: nn.Linear, *, then: Literal["none", "gelu"] = "none") -> None:
        super().__init__()
        self.weight = _operators()._reorder_linear_weight(plain.weight.detach(), None)  # noqa: SLF001
        self.bias = plain.bias
        self.then = then

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """(..., in) to (..., out)."""
        said: torch.Tensor = _operators()._linear_pointwise(  # noqa: SLF001
            states, self.weight, self.bias, self.then, [], "none"
        )
        return said


def fits(model: PreTrainedModel) -> bool:
    """Whether this build of PyTorch has oneDNN, and the model computes in float32 on CPU."""
    backend: Any = torch.backends.mkldnn
    return (
        model.device.type == "cpu"
        and model.dtype is torch.float32
        and backend.is_available()
        and hasattr(_operators(), "_linear_pointwise")
    )


def install(model: PreTrainedModel) -> None:
    """Lay out the linear layers over the tokens of a model that ``fits``; plain ones are let go.

    Pooler and head stay: what comes there is of another number of rows in every batch, and oneDNN
    keeps a program for each number.
    """
    for module, layer, activation in list(activated(model)):
        setattr(module, layer, Laid(getattr(module, layer), then="gelu"))
        setattr(module, activation, nn.Identity())
    for module in within_stacks(model):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear:
                setattr(module, name, Laid(child))


def activated(model: PreTrainedModel) -> Iterator[tuple[nn.Module, str, str]]:
    """Modules with a linear layer that an exact GELU follows, and the names of both in it."""
    for module in within_stacks(model):
        for layer, activation in ACTIVATED:
            plain = getattr(module, layer, None)
            if type(plain) is nn.Linear and _is_exact(getattr(module, activation, None)):
                yield module, layer, activation


def block(model: PreTrainedModel) -> list[nn.Linear]:
    """The linear layers of a model's first layer; none in a model that is built otherwise."""
    first = next((stack[0] for stack in _stacks(model) if len(stack)), None)
    if first is None:
        return []
    return [each for each in first.modules() if type(each) is nn.Linear]


def _stacks(model: PreTrainedModel) -> list[nn.ModuleList]:
    return [each for each in model.base_model.modules() if isinstance(each, nn.ModuleList)]


def within_stacks(model: PreTrainedModel) -> Iterator[nn.Module]:
    """All modules of the model's layers, without its embeddings, pooler and head."""
    return itertools.chain.from_iterable(stack.modules() for stack in _stacks(model))


def _is_exact(activation: Any) -> bool:
    """Not one of the GELU's approximations."""
    return type(activation) is GELUActivation and activation.act is nn.functional.gelu


def _operators() -> Any:
    return torch.ops.mkldnn
