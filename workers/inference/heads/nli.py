"""Zero-shot classification by a model of natural language inference: which labels a text entails.

For every label the model reads the text with a hypothesis, such as "This text is about sports."
(Yin et al. 2019, "Benchmarking Zero-shot Text Classification"). A label's output is the logit of
entailment; in multi-label classification each label is a decision of its own, entailment against
contradiction.
"""

from __future__ import annotations

from pathlib import Path

import torch

from jobs.kinds import ClassifyOptions
from jobs.kinds.classify import entailment
from jobs.models.inspection import ModelFacts
from jobs.settings import Settings
from workers.inference.batching.collator import ModelInputs
from workers.inference.heads import sequence_head
from workers.inference.heads.label_decision import Activation
from workers.inference.heads.sequence_head import SequenceHead


class EntailmentHead:
    """One logit for each pair of text and hypothesis."""

    def __init__(self, head: SequenceHead, *, labels: tuple[str, ...], multi_label: bool) -> None:
        self.model = head.model
        self.labels = labels
        self.activation = Activation.SIGMOID if multi_label else Activation.SOFTMAX
        self._head = head
        self._yes = entailment(head.labels)
        self._no = _contradiction(head.labels, yes=self._yes) if multi_label else None

    def forward(self, inputs: ModelInputs) -> torch.Tensor:
        """Logits (pairs, 1)."""
        logits = self._head.forward(inputs)
        yes = logits[:, self._yes]
        return (yes if self._no is None else yes - logits[:, self._no])[:, None]


def _contradiction(labels: tuple[str, ...], *, yes: int) -> int:
    """The output for contradiction: by its name, or else the one at the other end."""
    named = (index for index, label in enumerate(labels) if label.lower().startswith("contra"))
    return next(named, len(labels) - 1 if yes == 0 else 0)


def load(
    folder: Path, *, facts: ModelFacts, options: ClassifyOptions, settings: Settings
) -> EntailmentHead:
    """The folder's model of natural language inference, on the device. Raises ``ModelFailure``."""
    head = sequence_head.load(folder, facts=facts, options=options, settings=settings)
    return EntailmentHead(
        head, labels=options.labels or (), multi_label=sequence_head.is_multi_label(facts, options)
    )
