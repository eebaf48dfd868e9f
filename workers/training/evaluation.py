"""Evaluation of a model on labelled rows: parts are measured, joined and reported.

A part keeps sums, predictions and generated texts of its rows, but no logits. Each rank of a
training measures a share of the rows (``validation``); the evaluation program measures piece after
piece (``evaluate``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedTokenizerBase, StoppingCriteriaList

from jobs.kinds import Task
from jobs.progress import Beat
from workers.inference.batching import batcher
from workers.inference.decoding.stop_sequences import HeartbeatCriteria
from workers.training import forward_faults, metrics
from workers.training.metrics import Report
from workers.training.objectives.batch import Batch
from workers.training.objectives.classification import Classification
from workers.training.objectives.objective import Objective
from workers.training.tokenized_dataset import TokenizedSplit

MAX_LENGTH_RATIO = 2
"""A generated text is cut at this multiple of its reference's tokens: it is wrong anyway."""

EXTRA_TOKENS = 16
"""Tokens that any generated text may have beyond that."""


@dataclass(frozen=True, slots=True)
class EvaluationPart:
    """The measurements of some rows."""

    rows: int
    loss: float  # the sum over rows (classify) or over target tokens
    weight: float  # the number of those rows or tokens
    truth: npt.NDArray[Any] | None = None  # label ids (rows,), or flags (rows, labels)
    predicted: npt.NDArray[Any] | None = None  # the same
    generated: tuple[str, ...] = ()
    references: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GreedyDecoder:
    """Greedy generation of texts, for the task text2text."""

    tokenizer: PreTrainedTokenizerBase
    max_tokens: int  # of a text

    def generate(
        self, model: Any, batch: Batch, *, lengths: Sequence[int], beat: Beat
    ) -> list[str]:
        """The batch's texts; ``lengths`` are the tokens of their references."""
        limits = [
            min(self.max_tokens, MAX_LENGTH_RATIO * length + EXTRA_TOKENS) for length in lengths
        ]
        ids = model.generate(
            input_ids=batch.inputs["input_ids"],
            attention_mask=batch.inputs["attention_mask"],
            max_new_tokens=max(limits),
            do_sample=False,
            num_beams=1,
            stopping_criteria=StoppingCriteriaList([HeartbeatCriteria(beat)]),
        )
        # The first token only starts the decoder. Each row has its own limit, so that its text does
        # not depend on its neighbours.
        kept = [row[1 : 1 + limit].tolist() for row, limit in zip(ids.cpu(), limits, strict=True)]
        tokenizer: Any = self.tokenizer
        return [str(tokenizer.decode(row, skip_special_tokens=True)).strip() for row in kept]


def measure(
    model: Any,
    objective: Objective,
    split: TokenizedSplit,
    *,
    rows: Sequence[int],
    budget: int,
    beat: Beat,
    advance: Callable[[int], None],
    decoder: GreedyDecoder | None = None,
) -> EvaluationPart:
    """Measure these rows, in batches of at most ``budget`` padded tokens.

    ``advance`` is called with the number of rows of every batch, ``beat`` after every generated
    token. With a ``decoder`` the model also generates texts.
    """
    parts = []
    with _evaluating(model):
        for batch in _batches(model, objective, split, rows=rows, budget=budget):
            with forward_faults.of_model():
                logits = model(**batch.inputs).logits
            part = _part(logits, batch, objective=objective, split=split)
            parts.append(_with_texts(part, model, batch, split, decoder=decoder, beat=beat))
            advance(len(batch.rows))
    return merge(parts)


def losses(
    model: Any,
    objective: Objective,
    split: TokenizedSplit,
    *,
    rows: Sequence[int],
    budget: int,
    beat: Beat,
) -> npt.NDArray[np.float64]:
    """The loss of each row; of target texts, the mean over their tokens. Batches as ``measure``."""
    indices = {row: index for index, row in enumerate(rows)}
    by_row = np.zeros(len(rows))
    with _evaluating(model):
        for batch in _batches(model, objective, split, rows=rows, budget=budget):
            with forward_faults.of_model():
                logits = model(**batch.inputs).logits
                losses = objective.losses(logits, batch, weighted=False).double()
            counts = batch.owners.bincount(minlength=len(batch.rows)).clamp(min=1)
            by_row[[indices[row] for row in batch.rows]] = (losses / counts).cpu().numpy()
            beat()
    return by_row


def _batches(
    model: Any, objective: Objective, split: TokenizedSplit, *, rows: Sequence[int], budget: int
) -> Iterator[Batch]:
    lengths = objective.lengths(split)[list(rows)].tolist()
    for indices in batcher.cut(lengths, budget=budget):
        for together in objective.together(split, [rows[index] for index in indices]):
            yield objective.batch(split, together).to(model.device)


def merge(parts: Sequence[EvaluationPart]) -> EvaluationPart:
    """One part with the rows of all parts, in their order."""
    return EvaluationPart(
        rows=sum(part.rows for part in parts),
        loss=sum(part.loss for part in parts),
        weight=sum(part.weight for part in parts),
        truth=_stacked([part.truth for part in parts]),
        predicted=_stacked([part.predicted for part in parts]),
        generated=tuple(text for part in parts for text in part.generated),
        references=tuple(text for part in parts for text in part.references),
    )


def report(part: EvaluationPart, *, objective: Objective) -> Report:
    """The report on a part; text2text has BLEU and chrF only if texts were generated."""
    if isinstance(objective, Classification):
        assert part.truth is not None
        assert part.predicted is not None
        return metrics.decisions(
            objective.labels, truth=part.truth, predicted=part.predicted, loss=part.loss / part.rows
        )
    result = metrics.language(
        loss_sum=part.loss, tokens=int(part.weight), rows=part.rows, task=objective.task
    )
    if objective.task is Task.TEXT2TEXT and part.generated:
        result |= metrics.translation(part.generated, part.references)
    return result


def _part(
    logits: torch.Tensor, batch: Batch, *, objective: Objective, split: TokenizedSplit
) -> EvaluationPart:
    losses = objective.losses(logits, batch, weighted=False).double()
    loss, rows = float(losses.sum()), len(batch.rows)
    if not isinstance(objective, Classification):
        return EvaluationPart(rows=rows, loss=loss, weight=len(batch.targets))
    return EvaluationPart(
        rows=rows,
        loss=loss,
        weight=rows,
        truth=objective.truth(split, batch.rows),
        predicted=metrics.decided(logits.float().cpu().numpy(), multi_label=objective.multi_label),
    )


def _with_texts(
    part: EvaluationPart,
    model: Any,
    batch: Batch,
    split: TokenizedSplit,
    *,
    decoder: GreedyDecoder | None,
    beat: Beat,
) -> EvaluationPart:
    if decoder is None:
        return part
    lengths = [len(split.targets[row]) for row in batch.rows]
    return EvaluationPart(
        rows=part.rows,
        loss=part.loss,
        weight=part.weight,
        generated=tuple(decoder.generate(model, batch, lengths=lengths, beat=beat)),
        references=tuple(split.reference(row) for row in batch.rows),
    )


def _stacked(arrays: Sequence[npt.NDArray[Any] | None]) -> npt.NDArray[Any] | None:
    present = [array for array in arrays if array is not None]
    return np.concatenate(present) if present else None


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Evaluation mode without gradients; restores the model's mode afterwards."""
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(training)
