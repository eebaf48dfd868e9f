"""Padding-free encoders: padding is removed before the first layer and restored after the last.

The windows of a batch are packed into one row, each with its own positions, and attention is
computed inside each window. From outside nothing changes: a padded batch goes in and padded states
come out; or, where only those are read, the states of the windows' first tokens (decision 0009).
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import AttentionInterface, PreTrainedModel

from workers.inference.kernels import device_map, varlen_attention
from workers.inference.kernels.first_token_layer import FirstTokenLayer
from workers.inference.kernels.varlen_attention import Packing

NAME = "nightshift_packed"

POSITIONS_FROM_ZERO = frozenset({"bert", "distilbert", "electra"})

POSITIONS_AFTER_PADDING_ID = frozenset({"camembert", "roberta", "xlm-roberta"})
"""Models whose positions begin at the padding id plus one, and skip padding tokens.

``FirstTokenLayer`` knows the layers of all models in both sets, and their classification heads read
the first token's state only (decision 0022).
"""

HALF_PRECISION = frozenset({torch.float16, torch.bfloat16})


def supports(model: PreTrainedModel) -> bool:
    """Whether the model can compute without padding on its device."""
    config = model.config
    if config.model_type not in POSITIONS_FROM_ZERO | POSITIONS_AFTER_PADDING_ID:
        return False
    if getattr(config, "is_decoder", False) or device_map.is_spread(model):
        return False
    return model.device.type == "cpu" or _supports_flash_attention(model)


def _supports_flash_attention(model: PreTrainedModel) -> bool:
    """Half precision, a GPU from Ampere on, and a head size that is a multiple of 8."""
    if model.device.type != "cuda" or model.dtype not in HALF_PRECISION:
        return False
    size = model.config.hidden_size // model.config.num_attention_heads
    return torch.cuda.get_device_capability(model.device) >= (8, 0) and size % 8 == 0


def installed(model: PreTrainedModel) -> bool:
    """Whether the model computes packed."""
    return bool(model.config._attn_implementation == NAME)  # noqa: SLF001 (it has no public name)


def install(model: PreTrainedModel, *, first_tokens_only: bool = False) -> None:
    """Let a model that ``supports`` allows compute packed: its inputs now include a ``packing``.

    ``first_tokens_only``: the output has the state of each window's first token and no other.
    """
    AttentionInterface.register(NAME, _attention_forward)
    model.set_attn_implementation(NAME)
    if first_tokens_only:
        stack = next(each for each in model.base_model.modules() if type(each) is nn.ModuleList)
        stack[-1] = FirstTokenLayer(stack[-1], heads=model.config.num_attention_heads)
    model.base_model.register_forward_pre_hook(_pack, with_kwargs=True)
    unpack = functools.partial(_unpack, first_tokens_only=first_tokens_only)
    model.base_model.register_forward_hook(unpack, with_kwargs=True)


def uninstall(model: PreTrainedModel) -> None:
    """Let a model compute padded batches again, by its own attention."""
    model.set_attn_implementation("sdpa")


@contextlib.contextmanager
def suspended(model: PreTrainedModel) -> Iterator[None]:
    """Within, the model computes padded batches by its own attention and gets no packing."""
    if not installed(model):
        yield
        return
    uninstall(model)
    try:
        yield
    finally:
        model.set_attn_implementation(NAME)


def _pack(
    base: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, dict[str, Any]] | None:
    """The padded batch as one row of its real tokens."""
    if "packing" not in kwargs:
        return None
    names = inspect.signature(base.forward).parameters
    kwargs = {**dict(zip(names, args, strict=False)), **kwargs}
    packing: Packing = kwargs["packing"]
    ids: torch.Tensor = kwargs["input_ids"]
    if base.config.model_type in POSITIONS_FROM_ZERO:
        positions = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    else:
        embeddings = base.embeddings
        positions = embeddings.create_position_ids_from_input_ids(ids, embeddings.padding_idx)
    padded = {"input_ids": ids, "position_ids": positions}
    if kwargs.get("token_type_ids") is not None:
        padded["token_type_ids"] = kwargs["token_type_ids"]
    rows = {
        name: functional.pad(each.flatten()[packing.indices], (0, packing.idle))[None]
        for name, each in padded.items()
    }
    return (), {**kwargs, **rows, "attention_mask": None}


def _unpack(
    base: Any,
    _args: tuple[Any, ...],
    kwargs: dict[str, Any],
    output: Any,
    *,
    first_tokens_only: bool,
) -> Any:
    """States padded again, with zeros, or those of first tokens; and the pooler's output."""
    if "packing" not in kwargs:
        return output
    packing: Packing = kwargs["packing"]
    row = output.last_hidden_state[0]
    if first_tokens_only:
        output.last_hidden_state = row[: len(packing.lengths), None]
    else:
        output.last_hidden_state = _padded(row[: len(packing.indices)], packing)
    pooler = getattr(base, "pooler", None)
    if pooler is not None:
        output.pooler_output = pooler(output.last_hidden_state)
    return output


def _padded(row: torch.Tensor, packing: Packing) -> torch.Tensor:
    size = (len(packing.lengths), max(packing.lengths))
    states = row.new_zeros(size[0] * size[1], row.shape[1])
    return states.index_copy_(0, packing.indices, row).view(*size, -1)


def _attention_forward(
    _module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _mask: None,
    *,
    packing: Packing,
    **_kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention inside each window: (1, heads, tokens, size) to (1, tokens, heads, size).

    Scores are divided by the square root of the size, as in every model that ``supports`` allows.
    """
    query, key, value = (each[0].transpose(0, 1) for each in (query, key, value))
    return varlen_attention.attention(query, key, value, packing)[None], None
