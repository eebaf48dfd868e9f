"""Windows that lie end to end in one row of tokens, and attention inside each of them.

On a GPU that is PyTorch's variable-length flash attention; on CPU windows of equal length, which
sorting puts side by side, go through SDPA together without a mask.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch.nn import functional

STEP = 32
"""Rows have a multiple of so many tokens. oneDNN makes, and keeps, a program for each number."""


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


def attended(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    packing: Packing,
    *,
    firsts: bool = False,
) -> torch.Tensor:
    """Attention inside each window of a row (tokens, heads, size), in the shape of the queries.

    All tokens ask, or ``firsts``: the first of each window. Idle ones get zeros.
    """
    asking = len(packing.lengths) if firsts else len(packing.places)
    mixed = torch.empty_like(query)
    mixed[asking:] = 0
    if query.is_cuda:
        mixed[:asking] = _variable(query[:asking], key, value, packing, firsts=firsts)
    else:
        _by_runs(query, key, value, packing, firsts=firsts, out=mixed)
    return mixed


def _variable(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, packing: Packing, *, firsts: bool
) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn  # noqa: PLC0415 (CUDA builds only)

    tokens, longest, bounds = len(packing.places), max(packing.lengths), packing.bounds
    asking = torch.arange(len(bounds), dtype=bounds.dtype, device=bounds.device)
    mixed = varlen_attn(
        query,
        key[:tokens],
        value[:tokens],
        asking if firsts else bounds,
        bounds,
        1 if firsts else longest,
        longest,
    )
    assert isinstance(mixed, torch.Tensor)  # nothing beside it was asked for
    return mixed


def _by_runs(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    packing: Packing,
    *,
    firsts: bool,
    out: torch.Tensor,
) -> None:
    """Windows of equal length together."""
    window = 0
    for start, count, length in packing.runs():
        keys, values = (_windows(each, start, count, length) for each in (key, value))
        asking = (window, count, 1) if firsts else (start, count, length)
        queries, mixed = (_windows(each, *asking) for each in (query, out))
        mixed.copy_(functional.scaled_dot_product_attention(queries, keys, values))
        window += count


def _windows(row: torch.Tensor, start: int, count: int, length: int) -> torch.Tensor:
    """(count, heads, length, size) of a row (tokens, heads, size), from a token on."""
    tokens = row[start : start + count * length]
    return tokens.view(count, length, *row.shape[1:]).transpose(1, 2)
