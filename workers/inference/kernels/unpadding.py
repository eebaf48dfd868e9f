"""An encoder's layers over real tokens only: padding goes in and comes out, and is never computed.

The windows of a batch lie end to end in one row, each counting its positions from the start, and
attention looks inside each window alone. Seen from outside nothing changes: a padded batch goes in
and padded states come out; or, where no others are read, those of the windows' first tokens.
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
from workers.inference.kernels.first_token_layer import Firsts
from workers.inference.kernels.varlen_attention import Packing

NAME = "nightshift_packed"

COUNTING = frozenset({"bert", "distilbert", "electra"})
"""Models whose positions count from zero."""

COUNTING_AFTER_PADDING = frozenset({"camembert", "roberta", "xlm-roberta"})
"""Models whose positions count from behind the padding id, and pass over it.

The layers of all these are of a shape that ``Firsts`` knows, and their classifiers' heads read the
first token's state alone (decision 0022).
"""

HALVES = frozenset({torch.float16, torch.bfloat16})


def fits(model: PreTrainedModel) -> bool:
    """Whether the model's layers can do without padding here."""
    config = model.config
    if config.model_type not in COUNTING | COUNTING_AFTER_PADDING:
        return False
    if getattr(config, "is_decoder", False) or device_map.is_spread(model):
        return False
    return model.device.type == "cpu" or _flash_fits(model)


def _flash_fits(model: PreTrainedModel) -> bool:
    """Flash attention: half precision, on GPUs from Ampere on, heads of whole eights of numbers."""
    if model.device.type != "cuda" or model.dtype not in HALVES:
        return False
    size = model.config.hidden_size // model.config.num_attention_heads
    return torch.cuda.get_device_capability(model.device) >= (8, 0) and size % 8 == 0


def installed(model: PreTrainedModel) -> bool:
    """Whether the model computes packed."""
    return bool(model.config._attn_implementation == NAME)  # noqa: SLF001 (it has no public name)


def install(model: PreTrainedModel, *, firsts: bool = False) -> None:
    """Let a model that ``fits`` compute packed: with its ids it is now given a ``packing``.

    ``firsts``: of the states only each window's first token's is read. Then there are no others.
    """
    AttentionInterface.register(NAME, _attend)
    model.set_attn_implementation(NAME)
    if firsts:
        stack = next(each for each in model.base_model.modules() if type(each) is nn.ModuleList)
        stack[-1] = Firsts(stack[-1], heads=model.config.num_attention_heads)
    model.base_model.register_forward_pre_hook(_pack, with_kwargs=True)
    unpack = functools.partial(_unpack, firsts=firsts)
    model.base_model.register_forward_hook(unpack, with_kwargs=True)


def uninstall(model: PreTrainedModel) -> None:
    """Let a model compute padded batches as it came."""
    model.set_attn_implementation("sdpa")


@contextlib.contextmanager
def unpacked(model: PreTrainedModel) -> Iterator[None]:
    """Within, the model computes as it came, and is given no packing: its layers look as usual."""
    if not installed(model):
        yield
        return
    uninstall(model)
    try:
        yield
    finally:
        model.set_attn_implementation(NAME)


def _pack(
    base: Any, args: tuple[Any, ...], given: dict[str, Any]
) -> tuple[Any, dict[str, Any]] | None:
    """The padded batch as one row of its real tokens."""
    if "packing" not in given:
        return None
    names = inspect.signature(base.forward).parameters
    given = {**dict(zip(names, args, strict=False)), **given}
    packing: Packing = given["packing"]
    ids: torch.Tensor = given["input_ids"]
    if base.config.model_type in COUNTING:
        positions = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    else:
        embeddings = base.embeddings
        positions = embeddings.create_position_ids_from_input_ids(ids, embeddings.padding_idx)
    padded = {"input_ids": ids, "position_ids": positions}
    if given.get("token_type_ids") is not None:
        padded["token_type_ids"] = given["token_type_ids"]
    rows = {
        name: functional.pad(each.flatten()[packing.places], (0, packing.idle))[None]
        for name, each in padded.items()
    }
    return (), {**given, **rows, "attention_mask": None}


def _unpack(
    base: Any, _args: tuple[Any, ...], given: dict[str, Any], output: Any, *, firsts: bool
) -> Any:
    """States padded again, with zeros, or first ones alone; and what the model pools of them."""
    if "packing" not in given:
        return output
    packing: Packing = given["packing"]
    row = output.last_hidden_state[0]
    if firsts:
        output.last_hidden_state = row[: len(packing.lengths), None]
    else:
        output.last_hidden_state = _padded(row[: len(packing.places)], packing)
    pooler = getattr(base, "pooler", None)
    if pooler is not None:
        output.pooler_output = pooler(output.last_hidden_state)
    return output


def _padded(row: torch.Tensor, packing: Packing) -> torch.Tensor:
    size = (len(packing.lengths), max(packing.lengths))
    states = row.new_zeros(size[0] * size[1], row.shape[1])
    return states.index_copy_(0, packing.places, row).view(*size, -1)


def _attend(
    _module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _mask: None,
    *,
    packing: Packing,
    **_given: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of (1, heads, tokens, size) inside each window; out comes (1, tokens, heads, size).

    Scores are divided by the root of the size, as in every model that ``fits``.
    """
    query, key, value = (each[0].transpose(0, 1) for each in (query, key, value))
    return varlen_attention.attended(query, key, value, packing)[None], None
