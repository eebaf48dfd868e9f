"""An encoder's layers over real tokens only: padding goes in and comes out, and is never computed.

The windows of a batch lie end to end in one row, each counting its positions from the start, and
attention looks inside each window alone. Seen from outside nothing changes: a padded batch goes in
and padded states come out. On a GPU attention is PyTorch's variable-length flash attention; on CPU
windows of equal length, which sorting puts side by side, go through SDPA together without a mask.
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch.nn import functional
from transformers import AttentionInterface, PreTrainedModel

from workers.inference import spreading

NAME = "nightshift_packed"

COUNTING = frozenset({"bert", "distilbert", "electra"})
"""Models whose positions count from zero."""

COUNTING_AFTER_PADDING = frozenset({"camembert", "roberta", "xlm-roberta"})
"""Models whose positions count from behind the padding id, and pass over it."""

STEP = 32
"""Rows have a multiple of so many tokens. oneDNN makes, and keeps, a program for each number."""

HALVES = frozenset({torch.float16, torch.bfloat16})


@dataclass(frozen=True, slots=True)
class Packing:
    """Where the tokens of a batch lie."""

    lengths: tuple[int, ...]  # of each window, in the batch's order
    places: torch.Tensor  # (tokens,): of each token in the padded batch, laid out flat
    bounds: torch.Tensor  # (windows + 1,) int32: where each window begins, and the last one ends

    @classmethod
    def of(cls, lengths: Sequence[int]) -> Self:
        """Windows of these lengths, filled up at the right to the longest."""
        longest = max(lengths)
        counts = torch.tensor(lengths)
        bounds = functional.pad(counts.cumsum(0), (1, 0))
        # A token moves to the right by what the windows before its own were filled up with.
        shifts = longest * torch.arange(len(counts)) - bounds[:-1]
        places = torch.arange(int(bounds[-1])) + shifts.repeat_interleave(counts)
        return cls(tuple(lengths), places=places, bounds=bounds.int())

    @property
    def idle(self) -> int:
        """Tokens that a row of these has at its end and that nobody reads, see ``STEP``."""
        return -len(self.places) % STEP

    def on(self, device: torch.device) -> Packing:
        """The same with its tensors on a device; a GPU is not waited for."""
        return Packing(
            self.lengths, places=moved(self.places, device), bounds=moved(self.bounds, device)
        )

    def runs(self) -> Iterator[tuple[int, int, int]]:
        """Neighbours of equal length: first token, windows, tokens of each."""
        start = 0
        for length, group in itertools.groupby(self.lengths):
            count = sum(1 for _ in group)
            yield start, count, length
            start += count * length


def moved(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on a device; a copy to a GPU starts from pinned memory and is not waited for."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def fits(model: PreTrainedModel) -> bool:
    """Whether the model's layers can do without padding here."""
    config = model.config
    if config.model_type not in COUNTING | COUNTING_AFTER_PADDING:
        return False
    if getattr(config, "is_decoder", False) or spreading.is_spread(model):
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


def install(model: PreTrainedModel) -> None:
    """Let a model that ``fits`` compute packed: with its ids it is now given a ``packing``."""
    AttentionInterface.register(NAME, _attend)
    model.set_attn_implementation(NAME)
    model.base_model.register_forward_pre_hook(_pack, with_kwargs=True)
    model.base_model.register_forward_hook(_unpack, with_kwargs=True)


@contextlib.contextmanager
def unpacked(model: PreTrainedModel) -> Iterator[None]:
    """Within, the model computes as it came, and is given no packing: its layers look as usual."""
    if not installed(model):
        yield
        return
    model.set_attn_implementation("sdpa")
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


def _unpack(base: Any, _args: tuple[Any, ...], given: dict[str, Any], output: Any) -> Any:
    """States padded again, with zeros, and what the model pools of them."""
    if "packing" not in given:
        return output
    packing: Packing = given["packing"]
    row = output.last_hidden_state[0][: len(packing.places)]
    size = (len(packing.lengths), max(packing.lengths))
    states = row.new_zeros(size[0] * size[1], row.shape[1])
    output.last_hidden_state = states.index_copy_(0, packing.places, row).view(*size, -1)
    pooler = getattr(base, "pooler", None)
    if pooler is not None:
        output.pooler_output = pooler(output.last_hidden_state)
    return output


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
    tokens = len(packing.places)
    row = [each[0].transpose(0, 1)[:tokens] for each in (query, key, value)]
    if query.is_cuda:
        return functional.pad(_variable(row, packing), (0, 0, 0, 0, 0, packing.idle))[None], None
    mixed = query.new_empty(1, tokens + packing.idle, *row[0].shape[1:])
    mixed[0, tokens:] = 0
    _by_runs(row, packing, out=mixed[0])
    return mixed, None


def _variable(row: list[torch.Tensor], packing: Packing) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn  # noqa: PLC0415 (CUDA builds only)

    query, key, value = row
    longest = max(packing.lengths)
    bounds = packing.bounds
    mixed = varlen_attn(query, key, value, bounds, bounds, longest, longest)
    assert isinstance(mixed, torch.Tensor)  # nothing beside it was asked for
    return mixed


def _by_runs(row: list[torch.Tensor], packing: Packing, *, out: torch.Tensor) -> None:
    """Windows of equal length together; what is mixed goes into ``out`` (tokens, heads, size)."""
    for start, count, length in packing.runs():
        query, key, value, mixed = (
            each[start : start + count * length]
            .view(count, length, *each.shape[1:])
            .transpose(1, 2)
            for each in (*row, out)
        )
        mixed.copy_(functional.scaled_dot_product_attention(query, key, value))
