"""Post-training quantization of an encoder's linear layers to int8, on CPU (decision 0026).

Pooler and head stay in float32. The inputs of each layer are calibrated once, on random tokens that
are the same in every process; each layer gets the quantizer whose output is nearest to float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import structlog
import torch
from torch import nn
from transformers import PreTrainedModel

from jobs.errors import ModelFailure
from workers.inference.batching.memory import is_out_of_memory
from workers.inference.kernels import onednn_linear
from workers.inference.kernels.int8_linear import TINY, Int8Linear, Spread, TokenQuantizer

log = structlog.get_logger()

ROWS, TOKENS = 16, 64
"""Of the random calibration tokens."""


def quantized(model: PreTrainedModel) -> PreTrainedModel:
    """The model, its linear layers quantized in place. Raises ``ModelFailure`` if unsupported."""
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
    locations = list(_linears(model))
    inputs = _calibration_inputs(model, {layer for _, _, layer in locations})
    before_gelu = {id(getattr(module, name)) for module, name, _ in onednn_linear.activated(model)}
    for module, _, activation in list(onednn_linear.activated(model)):
        setattr(module, activation, nn.Identity())
    layers = {
        id(layer): layer for _, _, layer in locations
    }  # a layer that two modules share stays so
    quantized_layers: dict[int, Int8Linear] = {}
    for group in _same_input(list(layers.values()), inputs):
        nearest = _nearest(group, inputs.get(id(group[0])), before_gelu=before_gelu)
        quantized_layers |= {id(layer): new for layer, new in zip(group, nearest, strict=True)}
    for module, name, layer in locations:
        setattr(module, name, quantized_layers[id(layer)])
    return model


def _linears(model: PreTrainedModel) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    """Each linear layer over tokens: its parent module, its name there, and the layer."""
    for module in onednn_linear.within_stacks(model):
        for name, child in module.named_children():
            if type(child) is nn.Linear:
                yield module, name, child


@dataclass(frozen=True)
class _Input:
    """The input of a layer during calibration."""

    states: torch.Tensor  # (tokens, in), a copy
    tensor: torch.Tensor  # itself, to see which layers share it


@torch.inference_mode()
def _calibration_inputs(model: PreTrainedModel, layers: set[nn.Linear]) -> dict[int, _Input]:
    """The inputs of layers in a forward pass over random tokens, by the layer's id.

    Empty for a model that needs more than tokens: its layers get the default quantizer.
    """
    config = model.config
    size = getattr(config, "vocab_size", None) or 2
    max_tokens = getattr(config, "max_position_embeddings", None) or TOKENS
    tokens = max(1, min(TOKENS, max_tokens - 2))
    ids = torch.randint(size, (ROWS, tokens), generator=torch.Generator().manual_seed(0))
    inputs: dict[int, _Input] = {}

    def keep(layer: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        if id(layer) not in inputs:
            states = args[0].reshape(-1, args[0].shape[-1]).clone()
            inputs[id(layer)] = _Input(states, tensor=args[0])

    hooks = [layer.register_forward_pre_hook(keep) for layer in layers]
    base: Any = model.base_model
    try:
        base(input_ids=ids, attention_mask=torch.ones_like(ids))
    except Exception as error:  # the model needs other inputs
        if is_out_of_memory(error):
            raise
        log.info("int8 layers are quantized without calibration", reason=str(error))
    finally:
        for hook in hooks:
            hook.remove()
    return inputs


def _same_input(layers: list[nn.Linear], inputs: dict[int, _Input]) -> list[list[nn.Linear]]:
    """Groups of layers that read the same tensor, unchanged between them."""
    groups: list[list[nn.Linear]] = []
    for layer in layers:
        group = groups[-1] if groups else []
        mine, theirs = inputs.get(id(layer)), inputs.get(id(group[0])) if group else None
        if (
            mine is not None
            and theirs is not None
            and mine.tensor is theirs.tensor
            and torch.equal(mine.states, theirs.states)
        ):
            group.append(layer)
        else:
            groups.append([layer])
    return groups


@torch.no_grad()
def _nearest(
    layers: list[nn.Linear], layer_input: _Input | None, *, before_gelu: set[int]
) -> list[Int8Linear]:
    """Layers with one input in int8, with the quantizer that has the least error."""
    width = layers[0].in_features

    def build(quantizer: TokenQuantizer) -> list[Int8Linear]:
        return [
            Int8Linear(layer, quantizer=quantizer, then_gelu=id(layer) in before_gelu)
            for layer in layers
        ]

    if layer_input is None or not layer_input.states.isfinite().all():
        return build(TokenQuantizer(width))
    states = layer_input.states
    weights = torch.cat([layer.weight for layer in layers])
    candidates = [
        build(TokenQuantizer(width)),
        build(TokenQuantizer(width, skewed=True)),
        build(TokenQuantizer(width, spread=Spread.of(states, weights))),
    ]
    exact = [
        nn.functional.gelu(layer(states)) if id(layer) in before_gelu else layer(states)
        for layer in layers
    ]

    def error(candidate: list[Int8Linear]) -> float:
        return sum(
            float((int8(states) - target).square().mean() / target.square().mean().clamp_min(TINY))
            for int8, target in zip(candidate, exact, strict=True)
        )

    return min(candidates, key=error)
