"""Where a corpus is cut: rows into chunks, chunks into shards."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

FIRST_SHARD_ROWS = 2_000
"""The first shard is small, so that work begins while planning goes on; each next one doubles."""


@dataclass(frozen=True)
class ChunkLimits:
    """Upper bounds of one chunk and of one shard."""

    chunk_rows: int
    chunk_bytes: int
    shard_rows: int
    shard_bytes: int

    def max_rows_of_shard(self, index: int) -> int:
        return min(self.shard_rows, FIRST_SHARD_ROWS << min(index, 20))


def cut(sizes: Sequence[int], *, max_rows: int, max_bytes: int) -> list[int]:
    """Row counts of consecutive chunks, each of at most ``max_rows`` rows and ``max_bytes`` bytes.

    A row larger than ``max_bytes`` is a chunk of its own. The counts add up to ``len(sizes)``.
    """
    sums = [0, *itertools.accumulate(sizes)]
    chunks: list[int] = []
    start = 0
    while start < len(sizes):
        last = min(start + max_rows, len(sizes))
        end = bisect.bisect_right(sums, sums[start] + max_bytes, lo=start + 1, hi=last + 1) - 1
        end = max(end, start + 1)
        chunks.append(end - start)
        start = end
    return chunks
