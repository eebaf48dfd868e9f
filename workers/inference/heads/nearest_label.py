"""Encoders without a trained head: the label whose text is nearest to the row's, by cosine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch.nn import functional

from jobs.kinds import ClassifyOptions
from jobs.models.inspection import ModelFacts
from jobs.settings import Settings
from workers.inference.batching.collator import Inputs
from workers.inference.heads import pooling
from workers.inference.heads.label_decision import Activation
from workers.inference.heads.pooling import Encoder


class Nearest:
    """Label texts as points: cosines between a row's embedding and each label's."""

    activation = Activation.COSINE

    def __init__(self, encoder: Encoder, *, labels: tuple[str, ...]) -> None:
        self.model = encoder.model
        self.labels = labels
        self.encoder = encoder
        self._points = torch.empty(0)

    def place_labels(self, inputs: Sequence[Inputs]) -> torch.Tensor:
        """Embed the label texts, each alone: a point must not depend on its neighbours.

        Their points (labels, width).
        """
        with torch.no_grad():  # and no inference mode: explanations take gradients past them
            self._points = torch.cat([self._direction(each) for each in inputs])
        return self._points

    def measure(self, inputs: Inputs) -> torch.Tensor:
        """Cosines, one row per window."""
        return self._direction(inputs) @ self._points.T

    def _direction(self, inputs: Inputs) -> torch.Tensor:
        """Embeddings of length one, one per window."""
        return functional.normalize(self.encoder.measure(inputs), dim=1)


def load(
    folder: Path, *, facts: ModelFacts, options: ClassifyOptions, settings: Settings
) -> Nearest:
    """The folder's encoder (of a classifier: its base), its labels not placed yet."""
    explained = options.explain is not None
    found = pooling.load(
        folder,
        pooling=None,
        facts=facts,
        options=options,
        gradients=explained,
        settings=settings,
    )
    return Nearest(found, labels=options.labels or ())
