"""Which rows make up a step, which rank takes which, and what goes through a device at once.

Pure functions of lengths, a seed and a position: every rank computes the plan of all ranks, so that
nobody has to ask, and a resumed run finds its place without drawing a random number. An epoch is a
permutation of the rows, four bytes a row in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from workers.inference.batching import batcher

Rows = npt.NDArray[np.int32]

BLOCK_STEPS = 8
"""Steps whose rows are dealt out by length: neighbours in length share a step, and padding shrinks.

Blocks are cut from a random permutation and a block's steps come in random order. Where length goes
with the label a step is not a fair sample, but a block is; it is as short as the memory of Adam's
mean (0.9), which evens its steps out.
"""


@dataclass(frozen=True, slots=True)
class Share:
    """A rank's part of a step."""

    batches: list[list[int]]  # rows of the corpus, one list for each pass through the device
    counts: bool  # False: fewer rows than ranks; its one row has no part in the loss


def steps_per_epoch(rows: int, *, batch_rows: int) -> int:
    """Steps in an epoch; the last may be smaller."""
    return -(-rows // batch_rows)


def epoch_order(lengths: npt.NDArray[np.int32], *, seed: int, epoch: int, batch_rows: int) -> Rows:
    """Every row once: step ``s`` of the epoch is the slice from ``s * batch_rows``."""
    chance = np.random.Generator(np.random.PCG64((seed, epoch)))
    order = chance.permutation(np.arange(len(lengths), dtype=np.int32))
    size = BLOCK_STEPS * batch_rows
    for start in range(0, len(order), size):
        block = order[start : start + size]
        block[:] = _by_length(block, lengths[block], batch_rows=batch_rows, chance=chance)
    return order


def _by_length(
    block: Rows, lengths: npt.NDArray[np.int32], *, batch_rows: int, chance: np.random.Generator
) -> Rows:
    """The block's rows sorted by length, in whole steps of random order; what is left comes last.

    The rows that are left for a smaller last step are the first of the block, and so random ones.
    """
    left = len(block) % batch_rows
    ranked = block[left:][np.argsort(lengths[left:], kind="stable")]
    steps = ranked.reshape(-1, batch_rows)
    return np.concatenate([steps[chance.permutation(len(steps))].ravel(), block[:left]])


def share(
    rows: Sequence[int], lengths: Sequence[int], *, rank: int, ranks: int, budget: int
) -> Share:
    """The rank's part of a step of these rows, cut into batches by a budget of padded tokens."""
    mine = _dealt(lengths, rank=rank, ranks=ranks)
    chosen = mine or [0]
    cut = batcher.cut([lengths[place] for place in chosen], budget=budget)
    batches = [[int(rows[chosen[place]]) for place in batch] for batch in cut]
    return Share(batches=batches, counts=bool(mine))


def _dealt(lengths: Sequence[int], *, rank: int, ranks: int) -> list[int]:
    """Places in the step, dealt to and fro from the longest: like counts, like sums of lengths."""
    ranked = sorted(range(len(lengths)), key=lambda place: (-lengths[place], place))
    turns = (min(turn, 2 * ranks - 1 - turn) for turn in _turns(len(ranked), ranks=ranks))
    return [place for place, turn in zip(ranked, turns, strict=True) if turn == rank]


def _turns(count: int, *, ranks: int) -> list[int]:
    return [place % (2 * ranks) for place in range(count)]
