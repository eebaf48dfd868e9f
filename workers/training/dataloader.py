"""The steps of a training from a position on, with their tensors made ahead."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from workers.training import sampler
from workers.training.tasks import Batch, Family
from workers.training.tokenized_dataset import Tokens


@dataclass(frozen=True, slots=True)
class Step:
    """One optimizer step of this rank."""

    batches: list[Batch]
    weight: float  # of all rows of all ranks: what the sum of losses is divided by
    counts: bool  # False: this rank only keeps the others company
    rows: int  # of all ranks
    tokens: int  # of all ranks, padding left out


@dataclass(frozen=True)
class Feed:
    """How a rank's steps are made. Twelve bytes a row are in memory: length, weight, order."""

    family: Family
    tokens: Tokens
    seed: int
    batch_rows: int
    budget: int
    rank: int
    ranks: int
    pin: bool

    def steps(self, *, epoch: int, place: int) -> Iterator[Step]:
        """Steps without end, from a place in an epoch."""
        lengths = self.family.lengths(self.tokens)
        weights = self.family.weights(self.tokens)
        while True:
            order = sampler.epoch_order(
                lengths, seed=self.seed, epoch=epoch, batch_rows=self.batch_rows
            )
            for start in range(place * self.batch_rows, len(order), self.batch_rows):
                rows = order[start : start + self.batch_rows]
                yield self._step(rows, lengths[rows], weight=_sum(weights[rows]))
            epoch, place = epoch + 1, 0

    def _step(self, rows: sampler.Rows, lengths: sampler.Rows, *, weight: float) -> Step:
        share = sampler.share(
            rows.tolist(),
            lengths.tolist(),
            rank=self.rank,
            ranks=self.ranks,
            budget=self.budget,
        )
        made = [
            self.family.batch(self.tokens, rows_together)
            for each in share.batches
            for rows_together in self.family.together(self.tokens, each)
        ]
        return Step(
            batches=[each.pinned() for each in made] if self.pin else made,
            weight=weight,
            counts=share.counts,
            rows=len(rows),
            tokens=int(lengths.sum()),
        )


def _sum(weights: np.ndarray[tuple[int], np.dtype[np.float32]]) -> float:
    """Never nothing: a step without a token to be written has no loss, and divides by one."""
    return float(weights.sum(dtype=np.float64)) or 1.0
