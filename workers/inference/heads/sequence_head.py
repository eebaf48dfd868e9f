"""Checkpoints that were trained to classify: the head's own labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from jobs.kinds import ClassifyOptions
from jobs.models.inspection import MULTI_LABEL, ModelFacts
from jobs.settings import Settings
from workers.inference import model_loader
from workers.inference.batching.collator import Inputs
from workers.inference.heads.label_decision import Activation
from workers.inference.kernels import optimization


class Head:
    """A sequence-classification head: logits for the labels of its config."""

    def __init__(self, model: PreTrainedModel, *, multi_label: bool) -> None:
        names: Any = model.config.id2label
        self.model = model
        self.labels = tuple(names[index] for index in range(len(names)))
        # A single output has nothing to be compared with: it is a yes or no, as in a pipeline.
        sigmoid = multi_label or len(self.labels) == 1
        self.activation = Activation.SIGMOID if sigmoid else Activation.SOFTMAX

    def measure(self, inputs: Inputs) -> torch.Tensor:
        """Logits, one row per window."""
        logits: torch.Tensor = self.model(**inputs).logits
        return logits


def load(
    folder: Path,
    *,
    facts: ModelFacts,
    options: ClassifyOptions,
    settings: Settings,
) -> Head:
    """The folder's classifier on the device. Raises ``ModelFailure``."""
    auto: Any = AutoModelForSequenceClassification
    model = model_loader.model(folder, auto=auto, options=options)
    # The heads of all models that are rearranged read the first token's state and no other.
    optimization.tune(model, firsts=True, gradients=options.explain is not None, settings=settings)
    return Head(model, multi_label=is_multi_label(facts, options))


def is_multi_label(facts: ModelFacts, options: ClassifyOptions) -> bool:
    """The option, or else what the checkpoint was trained for."""
    if options.multi_label is not None:
        return options.multi_label
    return options.labels is None and facts.problem_type == MULTI_LABEL
