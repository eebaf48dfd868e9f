"""Which rows go through the device together: one pure function over token lengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum

MAX_PADDING = 0.25
"""No row is filled up by more than this share of its batch's longest row."""

SMALL_PADDING = 8
"""Below this many tokens filling up costs less than another pass through the model."""

MAX_PACKED = 2
"""Packed rows, were they filled up, would take at most so many budgets: what goes in and comes out
of the model is filled up still."""


class Fill(StrEnum):
    """How rows share a batch, above all rows of different lengths."""

    PAD = "pad"  # each is filled up to the longest
    PACK = "pack"  # end to end, without padding
    LENGTH = "length"  # they do not: all rows of a batch have one length
    ALONE = "alone"  # no row shares a batch


def cut(lengths: Sequence[int], *, budget: int, fill: Fill = Fill.PAD) -> Iterator[list[int]]:
    """Batches of indices into ``lengths``, each index once, longest rows first.

    A batch is at most ``budget`` tokens, padding included, unless it is a single row. The longest
    come first, so that memory problems show at once and not at the end.
    """
    batch: list[int] = []
    tokens = 0
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        length = lengths[index]
        longest = lengths[batch[0]] if batch else length
        padded = (len(batch) + 1) * longest
        if batch and not _may_join(
            length, longest=longest, tokens=tokens + length, padded=padded, budget=budget, fill=fill
        ):
            yield batch
            batch, tokens = [], 0
        batch.append(index)
        tokens += length
    if batch:
        yield batch


def _may_join(
    length: int, *, longest: int, tokens: int, padded: int, budget: int, fill: Fill
) -> bool:
    """Whether a row goes into a batch that has so many tokens with it, bare and padded."""
    match fill:
        case Fill.PACK:
            return tokens <= budget and padded <= MAX_PACKED * budget
        case Fill.PAD:
            much = max(SMALL_PADDING, int(longest * MAX_PADDING))
            return padded <= budget and longest - length <= much
        case Fill.LENGTH:
            return padded <= budget and length == longest
        case Fill.ALONE:
            return False
