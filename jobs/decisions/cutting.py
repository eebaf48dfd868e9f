"""Where a corpus is cut: rows into chunks, chunks into shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

FIRST_SHARD_ROWS = 2_000
"""The first shard is small, so that work begins while planning goes on; each next one doubles."""


@dataclass(frozen=True)
class Limits:
    """The most that one chunk and one shard may hold."""

    chunk_rows: int
    chunk_bytes: int
    shard_rows: int
    shard_bytes: int

    def rows_of_shard(self, index: int) -> int:
        """The most rows of the shard with this index."""
        return min(self.shard_rows, FIRST_SHARD_ROWS << min(index, 20))


def cut(sizes: Sequence[int], *, rows: int, size: int) -> list[int]:
    """Row counts of consecutive chunks, each of at most ``rows`` rows and ``size`` bytes.

    A row larger than ``size`` stands alone. The counts add up to ``len(sizes)``.
    """
    chunks: list[int] = []
    count = total = 0
    for row in sizes:
        if count and (count == rows or total + row > size):
            chunks.append(count)
            count = total = 0
        count += 1
        total += row
    return [*chunks, count] if count else chunks
