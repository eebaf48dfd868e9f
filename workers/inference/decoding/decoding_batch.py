"""A batch of sequences during generation, with its KV cache: rows may leave it and others join.

All sequences end at the same column, and the columns before a shorter one are masked, in the token
ids as well as in the keys and values of the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional
from transformers import DynamicCache

from workers.inference.decoding.sampling import Sampling


@dataclass(frozen=True, slots=True)
class Prompt:
    """The tokens of a row's prompt, and how it continues: without ``sampling``, greedily."""

    row: int
    ids: list[int]
    max_new_tokens: int
    truncated: bool = False
    sampling: Sampling | None = None

    @property
    def max_length(self) -> int:
        """Tokens of the prompt and of its longest output together."""
        return len(self.ids) + self.max_new_tokens


@dataclass(slots=True)
class SequenceState:
    """A prompt and the tokens generated for it so far."""

    prompt: Prompt
    new_tokens: list[int] = field(default_factory=list)
    stopped: bool = False  # by an end-of-text token or a stop sequence
    batched: bool = False  # with other rows, which may change the last bits of its scores
    in_doubt: bool = False  # such a change could have led to another token
    not_finite: bool = False  # a score was NaN, so that no token could be chosen

    @property
    def remaining(self) -> int:
        """Tokens that may still be generated."""
        return 0 if self.stopped else self.prompt.max_new_tokens - len(self.new_tokens)


@dataclass(slots=True)
class DecodingBatch:
    """Sequences with all their tokens, right-aligned in ``ids`` (rows, width), where ``mask`` is 1.

    ``cache`` has keys and values of all tokens but the last; it is empty before prefill. Without a
    cache the batch must be generated in one call.
    """

    sequences: list[SequenceState]
    ids: torch.Tensor
    mask: torch.Tensor
    cache: DynamicCache | None

    @property
    def width(self) -> int:
        """Tokens of the longest sequence, so far."""
        return self.ids.shape[1]

    def keep(self, indices: Sequence[int]) -> None:
        """Keep the sequences at these indices, as wide as the longest of them."""
        assert self.cache is not None
        start = int(self.mask[list(indices)].any(dim=0).int().argmax())
        self.sequences = [self.sequences[index] for index in indices]
        self.ids, self.mask = self.ids[list(indices), start:], self.mask[list(indices), start:]
        for layer in _layers(self.cache):  # one at a time: memory holds only one layer twice
            rows = torch.tensor(indices, device=layer.keys.device)
            layer.keys = layer.keys[rows, :, start:]
            layer.values = layer.values[rows, :, start:]

    def join(self, other: DecodingBatch) -> None:
        """Take over the sequences of another batch, which must not be used after this."""
        assert self.cache is not None
        assert other.cache is not None
        self.sequences = [*self.sequences, *other.sequences]
        self.ids = _concatenated(self.ids, other.ids)
        self.mask = _concatenated(self.mask, other.mask)
        for layer, new in zip(_layers(self.cache), _layers(other.cache), strict=True):
            layer.keys = _concatenated(layer.keys, new.keys, behind=1)
            layer.values = _concatenated(layer.values, new.values, behind=1)
            new.keys = new.values = None


def _concatenated(one: torch.Tensor, other: torch.Tensor, *, behind: int = 0) -> torch.Tensor:
    """Rows of both, left-padded with zeros to the width of the wider one.

    The width is the last dimension but ``behind`` others.
    """
    width = max(each.shape[-1 - behind] for each in (one, other))
    return torch.cat(
        [
            functional.pad(each, (*(0, 0) * behind, width - each.shape[-1 - behind], 0))
            for each in (one, other)
        ]
    )


def _layers(cache: DynamicCache) -> list[Any]:
    """With keys and values (rows, heads, width, size) each."""
    return list(cache.layers)
