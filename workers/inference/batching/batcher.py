"""Dynamic batching: which rows go through the device together, a pure function of token lengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum

MAX_PADDING = 0.25
"""A row is padded by at most this share of its batch's longest row."""

SMALL_PADDING = 8
"""Padding of fewer tokens than this always costs less than another forward pass."""

MAX_PADDED_BUDGETS = 2
"""Packed rows would take at most this many budgets if they were padded: the model's inputs and
outputs are still padded."""


class BatchLayout(StrEnum):
    """How rows, above all of different lengths, share a batch. Values are stored in the cache."""

    PADDED = "pad"  # each row is padded to the longest
    PACKED = "pack"  # rows lie end to end, without padding
    EQUAL_LENGTH = "length"  # only rows of equal length share a batch
    SINGLE = "alone"  # one row a batch


def cut(
    lengths: Sequence[int], *, budget: int, layout: BatchLayout = BatchLayout.PADDED
) -> Iterator[list[int]]:
    """Batches of indices into ``lengths``, each index once, longest rows first.

    A batch has at most ``budget`` tokens, padding included, unless it is a single row. The longest
    come first, so that memory problems show at once and not at the end.
    """
    batch: list[int] = []
    tokens = 0
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        length = lengths[index]
        longest = lengths[batch[0]] if batch else length
        padded = (len(batch) + 1) * longest
        if batch and not _may_join(
            length,
            longest=longest,
            tokens=tokens + length,
            padded=padded,
            budget=budget,
            layout=layout,
        ):
            yield batch
            batch, tokens = [], 0
        batch.append(index)
        tokens += length
    if batch:
        yield batch


def _may_join(
    length: int, *, longest: int, tokens: int, padded: int, budget: int, layout: BatchLayout
) -> bool:
    """Whether a row may join a batch that then has ``tokens`` tokens, ``padded`` with padding."""
    match layout:
        case BatchLayout.PACKED:
            return tokens <= budget and padded <= MAX_PADDED_BUDGETS * budget
        case BatchLayout.PADDED:
            max_padding = max(SMALL_PADDING, int(longest * MAX_PADDING))
            return padded <= budget and longest - length <= max_padding
        case BatchLayout.EQUAL_LENGTH:
            return padded <= budget and length == longest
        case BatchLayout.SINGLE:
            return False
