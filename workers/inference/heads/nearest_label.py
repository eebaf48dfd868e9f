"""Encoders without a trained head: the label whose text is nearest to the row's, by cosine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch.nn import functional

from jobs.kinds import ClassifyOptions
from jobs.models.inspection import ModelFacts
from jobs.settings import Settings
from workers.inference.batching.collator import ModelInputs
from workers.inference.heads import pooling
from workers.inference.heads.label_decision import Activation
from workers.inference.heads.pooling import PooledEncoder


class NearestLabelHead:
    """Cosines between a row's embedding and the embedding of each label's text."""

    activation = Activation.COSINE

    def __init__(self, encoder: PooledEncoder, *, labels: tuple[str, ...]) -> None:
        self.model = encoder.model
        self.labels = labels
        self.encoder = encoder
        self._label_embeddings = torch.empty(0)

    def embed_labels(self, inputs: Sequence[ModelInputs]) -> torch.Tensor:
        """Embed the label texts (labels, width), each in a batch of its own.

        So no label's embedding depends on the other labels.
        """
        with torch.no_grad():  # not inference mode: explanations need gradients of the cosines
            self._label_embeddings = torch.cat([self._unit_embeddings(each) for each in inputs])
        return self._label_embeddings

    def forward(self, inputs: ModelInputs) -> torch.Tensor:
        """Cosines (windows, labels)."""
        return self._unit_embeddings(inputs) @ self._label_embeddings.T

    def _unit_embeddings(self, inputs: ModelInputs) -> torch.Tensor:
        return functional.normalize(self.encoder.forward(inputs), dim=1)


def load(
    folder: Path, *, facts: ModelFacts, options: ClassifyOptions, settings: Settings
) -> NearestLabelHead:
    """The folder's encoder (of a classifier: its base), its labels not embedded yet."""
    encoder = pooling.load(
        folder,
        pooling=None,
        facts=facts,
        options=options,
        gradients=options.explain is not None,
        settings=settings,
    )
    return NearestLabelHead(encoder, labels=options.labels or ())
