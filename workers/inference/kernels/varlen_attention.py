"""Variable-length attention: windows packed end to end in one row, attention inside each of them.

On a GPU this is PyTorch's variable-length flash attention. On CPU windows of equal length, which
sorting makes neighbours, go through SDPA together without a mask.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch.nn import functional

ROW_MULTIPLE = 32
"""The number of tokens in a row is a multiple of this: oneDNN compiles a program for each number of
tokens, and keeps it."""


@dataclass(frozen=True, slots=True)
class Packing:
    """Where the tokens of a batch are, padded and packed."""

    lengths: tuple[int, ...]  # of each window, in the batch's order
    indices: torch.Tensor  # (tokens,): of each token in the flattened padded batch
    cu_seqlens: torch.Tensor  # (windows + 1,) int32: cumulative lengths; where each window begins

    @classmethod
    def of(cls, lengths: Sequence[int]) -> Self:
        """Windows of these lengths, padded at the right to the longest."""
        longest = max(lengths)
        counts = torch.tensor(lengths)
        cu_seqlens = functional.pad(counts.cumsum(0), (1, 0))
        # A token moves to the right by the padding of all windows before its own.
        shifts = longest * torch.arange(len(counts)) - cu_seqlens[:-1]
        indices = torch.arange(int(cu_seqlens[-1])) + shifts.repeat_interleave(counts)
        return cls(tuple(lengths), indices=indices, cu_seqlens=cu_seqlens.int())

    @property
    def idle(self) -> int:
        """Tokens at the end of a packed row that are never read, see ``ROW_MULTIPLE``."""
        return -len(self.indices) % ROW_MULTIPLE

    def to(self, device: torch.device) -> Packing:
        """The same with its tensors on a device; a copy to a GPU is asynchronous."""
        return Packing(
            self.lengths,
            indices=to_device(self.indices, device),
            cu_seqlens=to_device(self.cu_seqlens, device),
        )

    def runs(self) -> Iterator[tuple[int, int, int]]:
        """Consecutive windows of equal length: first token, number of windows, tokens of each."""
        start = 0
        for length, group in itertools.groupby(self.lengths):
            count = sum(1 for _ in group)
            yield start, count, length
            start += count * length


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on a device; a copy to a GPU is asynchronous, from pinned memory."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    packing: Packing,
    *,
    first_tokens_only: bool = False,
) -> torch.Tensor:
    """Attention inside each window of a row (tokens, heads, size), in the shape of the queries.

    There is a query for every token, or with ``first_tokens_only`` for the first token of each
    window. Idle tokens get zeros.
    """
    queries = len(packing.lengths) if first_tokens_only else len(packing.indices)
    mixed = torch.empty_like(query)
    mixed[queries:] = 0
    if query.is_cuda:
        mixed[:queries] = _flash_attention(
            query[:queries], key, value, packing, first_tokens_only=first_tokens_only
        )
    else:
        _sdpa_by_runs(query, key, value, packing, first_tokens_only=first_tokens_only, out=mixed)
    return mixed


def _flash_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    packing: Packing,
    *,
    first_tokens_only: bool,
) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn  # noqa: PLC0415 (CUDA builds only)

    tokens, longest, cu_seqlens = len(packing.indices), max(packing.lengths), packing.cu_seqlens
    one_each = torch.arange(len(cu_seqlens), dtype=cu_seqlens.dtype, device=cu_seqlens.device)
    mixed = varlen_attn(
        query,
        key[:tokens],
        value[:tokens],
        one_each if first_tokens_only else cu_seqlens,
        cu_seqlens,
        1 if first_tokens_only else longest,
        longest,
    )
    assert isinstance(mixed, torch.Tensor)  # no other output was requested
    return mixed


def _sdpa_by_runs(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    packing: Packing,
    *,
    first_tokens_only: bool,
    out: torch.Tensor,
) -> None:
    """One call for each run of windows of equal length."""
    window = 0
    for start, count, length in packing.runs():
        keys, values = (_windows(each, start, count, length) for each in (key, value))
        where = (window, count, 1) if first_tokens_only else (start, count, length)
        queries, mixed = (_windows(each, *where) for each in (query, out))
        mixed.copy_(functional.scaled_dot_product_attention(queries, keys, values))
        window += count


def _windows(row: torch.Tensor, start: int, count: int, length: int) -> torch.Tensor:
    """(count, heads, length, size) of a row (tokens, heads, size), beginning at a token."""
    tokens = row[start : start + count * length]
    return tokens.view(count, length, *row.shape[1:]).transpose(1, 2)
