"""A model's numbers on labelled rows: part by part, joined, and made into a report.

A part is what remains of its rows: sums, decisions and written texts, no logits. The ranks of a
training measure a share each, the evaluate program piece after piece.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
from workers.training import faults, metrics
from workers.training.metrics import Report
from workers.training.tasks import Batch, Classify, Family
from workers.training.tokenized_dataset import Tokens

TOO_LONG = 2
"""A text that is this many times as long as the one wanted is wrong wherever it ends: it is cut."""

SHORT = 16
"""Tokens that any text may have besides."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows' numbers."""

    rows: int
    loss: float  # the sum over rows (classify) or over tokens to be written
    weight: float  # how many of those there are
    truth: npt.NDArray[Any] | None = None  # label ids (rows,), or flags (rows, labels)
    predicted: npt.NDArray[Any] | None = None  # the same
    written: tuple[str, ...] = ()
    wanted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Writer:
    """Greedy generation of texts, for the task text2text."""

    tokenizer: PreTrainedTokenizerBase
    max_tokens: int  # of a text

    def write(self, model: Any, batch: Batch, *, lengths: Sequence[int], beat: Beat) -> list[str]:
        """The batch's texts; ``lengths`` are the tokens of those wanted."""
        limits = [min(self.max_tokens, TOO_LONG * length + SHORT) for length in lengths]
        ids = model.generate(
            input_ids=batch.inputs["input_ids"],
            attention_mask=batch.inputs["attention_mask"],
            max_new_tokens=max(limits),
            do_sample=False,
            num_beams=1,
            stopping_criteria=StoppingCriteriaList([HeartbeatCriteria(beat)]),
        )
        # The first token only starts the decoder. Each row has a limit of its own, so that its text
        # does not depend on its neighbours.
        kept = [row[1 : 1 + limit].tolist() for row, limit in zip(ids.cpu(), limits, strict=True)]
        decoder: Any = self.tokenizer
        return [str(decoder.decode(row, skip_special_tokens=True)).strip() for row in kept]


def measure(
    model: Any,
    family: Family,
    tokens: Tokens,
    *,
    rows: Sequence[int],
    budget: int,
    beat: Beat,
    writer: Writer | None = None,
) -> Part:
    """The numbers of these rows, batch by batch of at most ``budget`` padded tokens.

    ``beat`` is called after every batch, and after every token that is written. With a ``writer``
    the model also writes the texts.
    """
    parts = []
    with _evaluating(model):
        for batch in _batches(model, family, tokens, rows=rows, budget=budget):
            with faults.of_model():
                logits = model(**batch.inputs).logits
            part = _part(logits, batch, family=family, tokens=tokens)
            parts.append(_with_texts(part, model, batch, tokens, writer=writer, beat=beat))
            beat()
    return joined(parts)


def losses(
    model: Any, family: Family, tokens: Tokens, *, rows: Sequence[int], budget: int, beat: Beat
) -> npt.NDArray[np.float64]:
    """The loss of each row, of texts to be written a mean over their tokens; as ``measure``."""
    places = {row: place for place, row in enumerate(rows)}
    found = np.zeros(len(rows))
    with _evaluating(model):
        for batch in _batches(model, family, tokens, rows=rows, budget=budget):
            with faults.of_model():
                logits = model(**batch.inputs).logits
                losses = family.losses(logits, batch, weighted=False).double()
            counts = batch.owners.bincount(minlength=len(batch.rows)).clamp(min=1)
            found[[places[row] for row in batch.rows]] = (losses / counts).cpu().numpy()
            beat()
    return found


def _batches(
    model: Any, family: Family, tokens: Tokens, *, rows: Sequence[int], budget: int
) -> Iterator[Batch]:
    lengths = family.lengths(tokens)[list(rows)].tolist()
    for places in batcher.cut(lengths, budget=budget):
        for together in family.together(tokens, [rows[place] for place in places]):
            yield family.batch(tokens, together).to(model.device)


def joined(parts: Sequence[Part]) -> Part:
    """One part of many, in their order."""
    return Part(
        rows=sum(part.rows for part in parts),
        loss=sum(part.loss for part in parts),
        weight=sum(part.weight for part in parts),
        truth=_stacked([part.truth for part in parts]),
        predicted=_stacked([part.predicted for part in parts]),
        written=tuple(text for part in parts for text in part.written),
        wanted=tuple(text for part in parts for text in part.wanted),
    )


def report(part: Part, *, family: Family) -> Report:
    """The report on all rows; of text2text, BLEU and chrF only where texts were written."""
    if isinstance(family, Classify):
        assert part.truth is not None
        assert part.predicted is not None
        return metrics.decisions(
            family.labels, truth=part.truth, predicted=part.predicted, loss=part.loss / part.rows
        )
    found = metrics.language(
        loss_sum=part.loss, tokens=int(part.weight), rows=part.rows, task=family.task
    )
    if family.task is Task.TEXT2TEXT and part.written:
        found |= metrics.translation(part.written, part.wanted)
    return found


def _part(logits: torch.Tensor, batch: Batch, *, family: Family, tokens: Tokens) -> Part:
    losses = family.losses(logits, batch, weighted=False).double()
    loss, rows = float(losses.sum()), len(batch.rows)
    if not isinstance(family, Classify):
        return Part(rows=rows, loss=loss, weight=len(batch.answers))
    numbers = logits.float().cpu().numpy()
    return Part(
        rows=rows,
        loss=loss,
        weight=rows,
        truth=family.truth(tokens, batch.rows),
        predicted=metrics.decided(numbers, multi_label=family.multi_label),
    )


def _with_texts(
    part: Part, model: Any, batch: Batch, tokens: Tokens, *, writer: Writer | None, beat: Beat
) -> Part:
    if writer is None:
        return part
    lengths = [len(tokens.targets[row]) for row in batch.rows]
    return Part(
        rows=part.rows,
        loss=part.loss,
        weight=part.weight,
        written=tuple(writer.write(model, batch, lengths=lengths, beat=beat)),
        wanted=tuple(tokens.reference(row) for row in batch.rows),
    )


def _stacked(arrays: Sequence[npt.NDArray[Any] | None]) -> npt.NDArray[Any] | None:
    known = [array for array in arrays if array is not None]
    return np.concatenate(known) if known else None


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Without dropout and gradients; the model goes on as it was."""
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(training)
