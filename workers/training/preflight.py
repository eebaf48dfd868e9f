"""What cannot be trained is found before the first step: one forward pass over the longest rows.

Positions that the model lacks, a head that does not fit: the job fails once, and no run is lost to
it. Token ids beyond the table of embeddings are found before, as for bulk jobs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jobs.progress import Beat
from workers.training import evaluation
from workers.training.tasks import Family
from workers.training.tokenized_dataset import Tokens


def check(
    model: Any,
    family: Family,
    splits: Sequence[Tokens],
    *,
    budget: int,
    beat: Beat,
) -> None:
    """Raise ``ModelFailure`` or ``CorpusFailure`` for rows that this model cannot compute."""
    for rows in splits:
        lengths = family.lengths(rows)
        extremes = sorted({int(np.argmax(lengths)), int(np.argmin(lengths))})
        evaluation.losses(model, family, rows, rows=extremes, budget=budget, beat=beat)
