"""An encoder's linear layers in integers of 8 bits, on CPU; pooler and head stay in float32.

What goes into each layer is looked at once, on made-up tokens that are the same in every process;
and of the ways to share out the integers among its numbers, the layer takes the one that comes
nearest to what it computes in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import structlog
import torch
from torch import nn
from transformers import PreTrainedModel

from jobs.errors import ModelFailure
from workers.inference.batching.memory import is_out_of_memory
from workers.inference.kernels import onednn_linear
from workers.inference.kernels.int8_linear import Int8Linear, Spread

log = structlog.get_logger()

ROWS, TOKENS = 16, 64
"""Of made-up tokens."""


def quantized(model: PreTrainedModel) -> PreTrainedModel:
    """The model, linear layers quantized in place. Raises ``ModelFailure`` where that cannot be."""
    if model.device.type != "cpu":
        raise ModelFailure(
            f"int8 computes on CPU, and this worker's device is {model.device.type}; "
            "submit the job without int8, or to a pool of CPU workers",
            code="int8_needs_cpu",
        )
    backend: Any = torch.backends.mkldnn
    if not hasattr(torch.ops.onednn, "qlinear_pointwise") or not backend.is_available():
        raise ModelFailure(
            "this worker's PyTorch has no int8 for its CPU; submit the job without int8",
            code="int8_needs_cpu",
        )
    places = list(_linears(model))
    states = _made_up(model, {layer for _, _, layer in places})
    before = {id(getattr(module, name)) for module, name, _ in onednn_linear.activated(model)}
    for module, _, activation in list(onednn_linear.activated(model)):
        setattr(module, activation, nn.Identity())
    made: dict[int, Int8Linear] = {}  # a layer that two modules share stays shared
    for module, name, layer in places:
        if id(layer) not in made:
            gelu = id(layer) in before
            made[id(layer)] = _nearest(layer, states.get(id(layer)), then_gelu=gelu)
        setattr(module, name, made[id(layer)])
    return model


def _linears(model: PreTrainedModel) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    """Each linear layer over the tokens: the module that it is in, its name there, and itself."""
    for module in onednn_linear.within_stacks(model):
        for name, child in module.named_children():
            if type(child) is nn.Linear:
                yield module, name, child


@torch.inference_mode()
def _made_up(model: PreTrainedModel, layers: set[nn.Linear]) -> dict[int, torch.Tensor]:
    """What goes into layers when the model reads made-up tokens, by the layer's id.

    Nothing, for a model that needs more than tokens: its channels are taken as they come.
    """
    config = model.config
    size = getattr(config, "vocab_size", None) or 2
    room = getattr(config, "max_position_embeddings", None) or TOKENS
    tokens = max(1, min(TOKENS, room - 2))
    ids = torch.randint(size, (ROWS, tokens), generator=torch.Generator().manual_seed(0))
    found: dict[int, torch.Tensor] = {}

    def keep(layer: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        found.setdefault(id(layer), given[0].reshape(-1, given[0].shape[-1]))

    hooks = [layer.register_forward_pre_hook(keep) for layer in layers]
    base: Any = model.base_model
    try:
        base(input_ids=ids, attention_mask=torch.ones_like(ids))
    except Exception as error:  # of whatever the model misses
        if is_out_of_memory(error):
            raise
        log.info("int8 without a look at what goes into layers", reason=str(error))
    finally:
        for hook in hooks:
            hook.remove()
    return found


@torch.no_grad()
def _nearest(layer: nn.Linear, states: torch.Tensor | None, *, then_gelu: bool) -> Int8Linear:
    """The layer in 8 bits, in the way that is nearest to it on these states."""
    if states is None or not states.isfinite().all():
        return Int8Linear(layer, then_gelu=then_gelu)
    ways = (
        Int8Linear(layer, then_gelu=then_gelu),
        Int8Linear(layer, then_gelu=then_gelu, skewed=True),
        Int8Linear(layer, then_gelu=then_gelu, spread=Spread.of(states, layer.weight)),
    )
    exact = nn.functional.gelu(layer(states)) if then_gelu else layer(states)
    return min(ways, key=lambda way: float((way(states) - exact).square().mean()))
