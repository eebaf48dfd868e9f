"""Which rows go through the device together: one pure function over token lengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

MAX_PADDING = 0.25
"""No row is filled up by more than this share of its batch's longest row."""

SMALL_PADDING = 8
"""Below this many tokens filling up costs less than another pass through the model."""


def cut(lengths: Sequence[int], *, budget: int, padding: bool = True) -> Iterator[list[int]]:
    """Batches of indices into ``lengths``, each index once, longest rows first.

    A batch's padded size, its count times its longest row, is at most ``budget`` tokens, unless it
    is a single row. The longest come first, so that memory problems show at once and not at the
    end. Without ``padding`` all rows of a batch have the same length.
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        longest = lengths[batch[0]] if batch else lengths[index]
        fill = longest - lengths[index]
        allowed = max(SMALL_PADDING, int(longest * MAX_PADDING)) if padding else 0
        if batch and ((len(batch) + 1) * longest > budget or fill > allowed):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
