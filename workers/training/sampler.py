"""The rows of each step, each rank's share of them, and their batches.

Pure functions of lengths, a seed and a position (promise P7): every rank computes the shares of all
ranks without communication, and a resumed run finds its position without drawing a random number.
An epoch is a permutation of the rows, four bytes a row in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from workers.inference.batching import batcher

Rows = npt.NDArray[np.int32]

BLOCK_STEPS = 8
"""Steps in a block. Within a block, rows of similar length share a step, which reduces padding.

Blocks are cut from a random permutation, and the steps of a block are in random order. If length
correlates with the label, a step is no fair sample, but a block is: it is as short as the memory of
Adam's first moment (0.9), which averages over its steps.
"""


@dataclass(frozen=True, slots=True)
class RankShare:
    """A rank's share of a step."""

    batches: list[list[int]]  # rows of the split, one list for each forward pass
    counts: bool  # False: fewer rows than ranks; its one row is a placeholder, not in the loss


def steps_per_epoch(rows: int, *, batch_rows: int) -> int:
    """Steps in an epoch; the last may be smaller."""
    return -(-rows // batch_rows)


def epoch_order(lengths: npt.NDArray[np.int32], *, seed: int, epoch: int, batch_rows: int) -> Rows:
    """Every row once; step ``s`` of the epoch is the slice from ``s * batch_rows``."""
    generator = np.random.Generator(np.random.PCG64((seed, epoch)))
    order = generator.permutation(np.arange(len(lengths), dtype=np.int32))
    size = BLOCK_STEPS * batch_rows
    for start in range(0, len(order), size):
        block = order[start : start + size]
        block[:] = _by_length(block, lengths[block], batch_rows=batch_rows, generator=generator)
    return order


def _by_length(
    block: Rows,
    lengths: npt.NDArray[np.int32],
    *,
    batch_rows: int,
    generator: np.random.Generator,
) -> Rows:
    """The block's rows sorted by length into full steps of random order, then the remainder.

    The rows of a smaller last step are the first of the block, so they are random rows.
    """
    remainder = len(block) % batch_rows
    by_length = block[remainder:][np.argsort(lengths[remainder:], kind="stable")]
    steps = by_length.reshape(-1, batch_rows)
    shuffled = steps[generator.permutation(len(steps))]
    return np.concatenate([shuffled.ravel(), block[:remainder]])


def share(
    rows: Sequence[int], lengths: Sequence[int], *, rank: int, ranks: int, budget: int
) -> RankShare:
    """The rank's share of these rows, in batches of at most ``budget`` padded tokens."""
    dealt = _dealt(lengths, rank=rank, ranks=ranks)
    indices = dealt or [0]
    cut = batcher.cut([lengths[index] for index in indices], budget=budget)
    batches = [[int(rows[indices[index]]) for index in batch] for batch in cut]
    return RankShare(batches=batches, counts=bool(dealt))


def _dealt(lengths: Sequence[int], *, rank: int, ranks: int) -> list[int]:
    """Indices of the rank's rows: from the longest on, ranks take turns forwards and backwards.

    All ranks get about equal counts and about equal sums of lengths.
    """
    by_length = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    cycle = [*range(ranks), *reversed(range(ranks))]
    return [index for turn, index in enumerate(by_length) if cycle[turn % len(cycle)] == rank]
