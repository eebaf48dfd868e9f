"""The batches of each step, from any position of any epoch (promise P7)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from workers.training import sampler
from workers.training.objectives.batch import Batch
from workers.training.objectives.objective import Objective
from workers.training.tokenized_dataset import TokenizedSplit


@dataclass(frozen=True, slots=True)
class TrainingStep:
    """The part of one optimizer step that is this rank's."""

    batches: list[Batch]
    weight: float  # of all rows of all ranks; the sum of losses is divided by it
    counts: bool  # False: no row is left for this rank; its placeholder is not in the loss
    rows: int  # of all ranks
    tokens: int  # of all ranks, without padding


@dataclass(frozen=True)
class StepLoader:
    """Makes the steps of a rank. Twelve bytes a row are in memory: length, weight, order."""

    objective: Objective
    split: TokenizedSplit
    seed: int
    batch_rows: int
    budget: int
    rank: int
    ranks: int
    pin: bool

    def steps(self, *, epoch: int, place: int) -> Iterator[TrainingStep]:
        """Endless steps, from step ``place`` of an epoch."""
        lengths = self.objective.lengths(self.split)
        weights = self.objective.weights(self.split)
        while True:
            order = sampler.epoch_order(
                lengths, seed=self.seed, epoch=epoch, batch_rows=self.batch_rows
            )
            for start in range(place * self.batch_rows, len(order), self.batch_rows):
                rows = order[start : start + self.batch_rows]
                yield self._step(rows, lengths[rows], weight=_sum(weights[rows]))
            epoch, place = epoch + 1, 0

    def _step(self, rows: sampler.Rows, lengths: sampler.Rows, *, weight: float) -> TrainingStep:
        share = sampler.share(
            rows.tolist(),
            lengths.tolist(),
            rank=self.rank,
            ranks=self.ranks,
            budget=self.budget,
        )
        batches = [
            self.objective.batch(self.split, group)
            for batch_rows in share.batches
            for group in self.objective.together(self.split, batch_rows)
        ]
        return TrainingStep(
            batches=[batch.pinned() for batch in batches] if self.pin else batches,
            weight=weight,
            counts=share.counts,
            rows=len(rows),
            tokens=int(lengths.sum()),
        )


def _sum(weights: np.ndarray[tuple[int], np.dtype[np.float32]]) -> float:
    """The sum, or one: a step without a target token has no loss to divide."""
    return float(weights.sum(dtype=np.float64)) or 1.0
