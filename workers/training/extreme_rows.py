"""A forward pass over the longest and the shortest rows before the first step.

It finds positions that the model lacks and heads that do not fit: the job fails at once instead of
at some step. Token ids beyond the embedding table are found when the model is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jobs.progress import Beat
from workers.training import evaluation
from workers.training.objectives.objective import Objective
from workers.training.tokenized_dataset import TokenizedSplit


def check(
    model: Any,
    objective: Objective,
    splits: Sequence[TokenizedSplit],
    *,
    budget: int,
    beat: Beat,
) -> None:
    """Raise ``ModelFailure`` or ``CorpusFailure`` for rows that the model cannot compute."""
    for rows in splits:
        lengths = objective.lengths(rows)
        extremes = sorted({int(np.argmax(lengths)), int(np.argmin(lengths))})
        evaluation.losses(model, objective, rows, rows=extremes, budget=budget, beat=beat)
