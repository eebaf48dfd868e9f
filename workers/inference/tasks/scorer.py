"""Scores: one number for each text, or for each pair of texts, from a head with one output.

Cross-encoders score how well a passage fits a query, reward models how good an answer is;
regressions measure whatever they were trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from jobs.kinds import ScoreActivation, ScoreOptions
from jobs.models.inspection import ModelFacts
from jobs.progress import Beat
from jobs.settings import Settings
from workers.inference import model_loader
from workers.inference.batching.chunk_runner import ChunkRunner
from workers.inference.batching.collator import Collator, ModelInputs
from workers.inference.batching.forward import NOT_FINITE, ModelRunner, Row, RowError
from workers.inference.batching.tokenization import RowText, WindowTokenizer
from workers.inference.heads.label_decision import Floats
from workers.inference.kernels import optimization
from workers.inference.probes import forward_probe, preflight
from workers.inference.probes.batch_policy import BatchPolicy

OUTPUTS = 1


@dataclass(frozen=True, slots=True)
class Score:
    """A row's score."""

    value: float
    tokens: int  # that the model read, special ones included
    truncated: bool  # the text was longer than what the model read of it
    unknown: int = 0  # how many of the tokens are the tokenizer's unknown token

    def columns(self) -> dict[str, Any]:
        """As in ``jobs.kinds.score``."""
        return {"score": self.value, "tokens": self.tokens, "truncated": self.truncated}


class ScoreHead:
    """A sequence-classification head with one output."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model

    def forward(self, inputs: ModelInputs) -> torch.Tensor:
        """(windows, 1): logits."""
        logits: torch.Tensor = self.model(**inputs).logits
        return logits


class Scorer:
    """A loaded model that scores. For one thread at a time."""

    def __init__(
        self,
        chunk_runner: ChunkRunner,
        *,
        activation: ScoreActivation,
        digest: str,
        batch_policy: BatchPolicy,
    ) -> None:
        self.digest = digest
        self.batch_policy = batch_policy
        self._chunk_runner = chunk_runner
        self._activation = activation

    def answer(self, texts: Mapping[int, RowText], *, beat: Beat) -> dict[int, Score | RowError]:
        """A score for every row; equal rows have the same one.

        In float32 it does not depend on the other rows by more than 1e-5, relative to the logit
        where that is larger than 1.
        """
        indices = {text: index for index, text in enumerate(dict.fromkeys(texts.values()))}
        found: dict[int, Score | RowError] = {}
        for group in self._chunk_runner.groups(list(indices), beat=beat):
            found |= {index: self._score(row) for index, row in group.items()}
        return {row: found[indices[text]] for row, text in texts.items()}

    def _score(self, row: Row) -> Score | RowError:
        if row.error is not None:
            return row.error
        if not np.isfinite(row.outputs).all():
            return NOT_FINITE
        return Score(
            float(self._activated(row.outputs).mean()),  # over the windows of a long text
            tokens=row.tokenized.tokens,
            truncated=row.tokenized.truncated,
            unknown=row.tokenized.unknown,
        )

    def _activated(self, logits: Floats) -> Floats:
        if self._activation is ScoreActivation.SIGMOID:
            return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits)))
        return logits


def load(folder: Path, options: ScoreOptions, *, facts: ModelFacts, settings: Settings) -> Scorer:
    """The folder's model on this process's device. Raises ``ModelFailure``."""
    auto: Any = AutoModelForSequenceClassification
    tokenizer = model_loader.tokenizer(folder)
    model = model_loader.model(folder, auto=auto, options=options)
    # The heads of all models that ``unpadding`` supports read only the first token's state.
    optimization.optimize(model, first_tokens_only=True, gradients=False, settings=settings)
    head = ScoreHead(model)
    preflight.check_vocabulary(model, tokenizer)
    collator = Collator(model, tokenizer=tokenizer)
    window_tokenizer = WindowTokenizer(tokenizer, max_tokens=facts.max_tokens, options=options)
    policy = forward_probe.apply_policy(
        head,
        collator=collator,
        window_tokenizer=window_tokenizer,
        tokenizer=tokenizer,
        settings=settings,
        digest=facts.digest,
        variant=options.kind,
    )
    preflight.check_forward(
        head,
        tokenizer=tokenizer,
        window_tokenizer=window_tokenizer,
        collator=collator,
        width=OUTPUTS,
    )
    budget = model_loader.calibrated(
        settings, model=model, digest=facts.digest, variant=options.kind
    )
    runner = ModelRunner(head, collator=collator, budget=budget)
    return Scorer(
        ChunkRunner(runner, tokenizer=window_tokenizer, width=OUTPUTS),
        activation=options.activation,
        digest=facts.digest,
        batch_policy=policy,
    )
