"""Evaluation reports from plain arrays: no torch, no files, no clock.

Every value is finite, so that a report is valid JSON. ``None`` stands for a loss or a perplexity
that is not finite (of a model that diverged, or beyond the range of a float).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    precision_recall_fscore_support,
)

from jobs.kinds import Task
from jobs.numbers import finite

Report = dict[str, Any]
Truth = npt.NDArray[np.int64] | npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32] | npt.NDArray[np.float64]

HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]")
WORD = re.compile(r"\w")


def classification(labels: Sequence[str], *, truth: Truth, logits: Floats, loss: float) -> Report:
    """The report on a classifier; multi-label if ``truth`` has two dimensions.

    ``truth`` is (rows,) label indices or (rows, labels) flags, ``logits`` is (rows, labels).
    """
    predicted = decided(logits, multi_label=truth.ndim > 1)
    return decisions(labels, truth=truth, predicted=predicted, loss=loss)


def decided(logits: Floats, *, multi_label: bool) -> Truth:
    """Each row's best label, or flags for those whose sigmoid reaches 0.5."""
    return np.asarray(logits >= 0) if multi_label else np.asarray(logits.argmax(axis=1))


def decisions(labels: Sequence[str], *, truth: Truth, predicted: Truth, loss: float) -> Report:
    """The report on a classifier from its predictions; both arrays have the same form.

    Multi-label accuracy is the exact match. A quotient with denominator 0 is 0: the recall of a
    label without rows, the precision of a label that was never predicted. Labels that are neither
    true nor predicted anywhere are not in the macro F1.
    """
    return {
        "task": str(Task.CLASSIFY),
        "rows": len(truth),
        "loss": finite(loss),
        "accuracy": float(accuracy_score(truth, predicted)),
        **_averages(truth, predicted, labels=len(labels)),
        "labels": list(labels),
        "per_label": _per_label(labels, truth=truth, predicted=predicted),
        "confusion": None if truth.ndim > 1 else _confusion(truth, predicted, labels=len(labels)),
    }


def language(*, loss_sum: float, tokens: int, rows: int, task: Task) -> Report:
    """The report on a language model: ``loss_sum`` in nats, over ``tokens`` predicted tokens."""
    loss = loss_sum / tokens if tokens else 0.0
    return {
        "task": str(task),
        "rows": rows,
        "loss": finite(loss),
        "perplexity": _perplexity(loss),
        "tokens": tokens,
    }


def translation(hypotheses: Sequence[str], references: Sequence[str]) -> Report:
    """Corpus BLEU and chrF (0 to 100, sacrebleu's defaults), one reference for each hypothesis.

    BLEU counts words, which Chinese does not separate: if most letters of the references are Han,
    sacrebleu's tokenizer ``zh`` makes each a word. The report names the tokenizer.
    """
    tokenizer = "zh" if mostly_han(references) else "13a"
    bleu = BLEU(tokenize=tokenizer).corpus_score(hypotheses, [references])
    chrf = CHRF().corpus_score(hypotheses, [references])
    return {"bleu": float(bleu.score), "chrf": float(chrf.score), "bleu_tokenizer": tokenizer}


def mostly_han(texts: Sequence[str]) -> bool:
    """Whether more than half of the texts' letters and digits are Han characters."""
    letters = sum(len(WORD.findall(text)) for text in texts)
    return 2 * sum(len(HAN.findall(text)) for text in texts) > letters


def _averages(truth: Truth, predicted: Truth, *, labels: int) -> Report:
    """F1 averages; micro F1 only for multi-label, because it is the accuracy otherwise."""
    seen = _seen(truth, predicted, labels=labels)
    kinds = ("macro", "weighted", "micro") if truth.ndim > 1 else ("macro", "weighted")
    return {f"{kind}_f1": _f1(truth, predicted, seen=seen, average=kind) for kind in kinds}


def _f1(truth: Truth, predicted: Truth, *, seen: list[int], average: str) -> float:
    if not seen:
        return 0.0
    return float(f1_score(truth, predicted, labels=seen, average=average, zero_division=0))


def _seen(truth: Truth, predicted: Truth, *, labels: int) -> list[int]:
    """Indices of the labels that are true or predicted somewhere."""
    if truth.ndim > 1:
        return [int(label) for label in np.flatnonzero((truth | predicted).any(axis=0))]
    return [label for label in range(labels) if np.any((truth == label) | (predicted == label))]


def _per_label(labels: Sequence[str], *, truth: Truth, predicted: Truth) -> list[Report]:
    columns = precision_recall_fscore_support(
        truth, predicted, labels=list(range(len(labels))), average=None, zero_division=0
    )
    return [
        {
            "label": label,
            "precision": float(precision),
            "recall": float(recall),
            "f1": float(f1),
            "rows": int(rows),
        }
        for label, precision, recall, f1, rows in zip(labels, *columns, strict=True)
    ]


def _confusion(truth: Truth, predicted: Truth, *, labels: int) -> list[list[int]]:
    """Rows: the true label; columns: the predicted one."""
    matrix = confusion_matrix(truth, predicted, labels=list(range(labels)))
    return [[int(count) for count in row] for row in matrix]


def _perplexity(loss: float) -> float | None:
    try:
        return finite(math.exp(loss))
    except OverflowError:
        return None
