"""Sequence-classification heads: checkpoints that were trained to classify, with their labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from jobs.kinds import ClassifyOptions
from jobs.models.inspection import MULTI_LABEL, ModelFacts
from jobs.settings import Settings
from workers.inference import model_loader
from workers.inference.batching.collator import ModelInputs
from workers.inference.heads.label_decision import Activation
from workers.inference.kernels import optimization


class SequenceHead:
    """A model with a sequence-classification head: logits for the labels of its config."""

    def __init__(self, model: PreTrainedModel, *, multi_label: bool) -> None:
        names: Any = model.config.id2label
        self.model = model
        self.labels = tuple(names[index] for index in range(len(names)))
        # A softmax over a single output is always 1: it is a yes or no, as in a pipeline.
        sigmoid = multi_label or len(self.labels) == 1
        self.activation = Activation.SIGMOID if sigmoid else Activation.SOFTMAX

    def forward(self, inputs: ModelInputs) -> torch.Tensor:
        """Logits (windows, labels)."""
        logits: torch.Tensor = self.model(**inputs).logits
        return logits


def load(
    folder: Path,
    *,
    facts: ModelFacts,
    options: ClassifyOptions,
    settings: Settings,
) -> SequenceHead:
    """The folder's classifier on the device. Raises ``ModelFailure``."""
    auto: Any = AutoModelForSequenceClassification
    model = model_loader.model(folder, auto=auto, options=options)
    # The heads of all models that ``unpadding`` supports read only the first token's state.
    optimization.optimize(
        model,
        first_tokens_only=True,
        gradients=options.explain is not None,
        settings=settings,
    )
    return SequenceHead(model, multi_label=is_multi_label(facts, options))


def is_multi_label(facts: ModelFacts, options: ClassifyOptions) -> bool:
    """By the option, or else by the problem type that the checkpoint was trained for."""
    if options.multi_label is not None:
        return options.multi_label
    return options.labels is None and facts.problem_type == MULTI_LABEL
