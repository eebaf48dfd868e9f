"""From a model's outputs to labels: which labels a row gets, and whether that is certain.

Keeps promise P6 (decision 0006): the answer must not depend on how rows are cut into chunks and
batches. The outputs do, in their last bits: a matrix product adds in an order that follows the
shape of the batch. Such a difference is far too small to change a clear decision, but it can
change a near-tie. So a row whose decision depends on a difference within the tolerance is not
settled: the engine computes it again alone, in a batch of its own length, whose bits no neighbour
can change, and that result is the answer. Labels that are equal even then (two rows of a head with
the same weights) keep their order.

Differences are compared in units in which rounding moves every score alike: logits (for a mean over
windows, the logit of the mean), and cosines as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]

TIE = 1 / 256
"""Labels closer than this share of the tolerance are equal: in float32 three units in the last
place of the row's largest output. It must be less than what distinguishes labels row by row."""

TINY = 1e-300
NEARLY_ONE = 1 - 2**-53


class Activation(StrEnum):
    """How outputs become scores."""

    SOFTMAX = "softmax"
    SIGMOID = "sigmoid"
    COSINE = "cosine"


@dataclass(frozen=True, slots=True)
class LabelRule:
    """How outputs become labels."""

    activation: Activation
    multi_label: bool  # every label that reaches the threshold, instead of the best top_k
    all_scores: bool  # every label
    top_k: int  # for single-label
    threshold: float  # for multi-label, on the score
    tolerance: (
        float  # how far batching may move an output, relative to the row's largest (at least 1)
    )


@dataclass(frozen=True, slots=True)
class LabelDecisions:
    """One entry per row."""

    order: Indices  # (rows, labels): label indices, best first
    scores: Floats  # (rows, labels): by label index, the mean over the row's windows
    shown: Indices  # (rows,): how many labels of the order are the answer
    finite: Flags  # (rows,): no output was NaN or infinite
    settled: Flags  # (rows,): no difference within the tolerance could change the answer


def decide(outputs: Floats, *, starts: Sequence[int], rule: LabelRule) -> LabelDecisions:
    """Decide rows by their outputs (windows, labels); a row's windows begin at its ``starts``."""
    begins = np.asarray(starts, dtype=np.intp)
    finite = np.logical_and.reduceat(np.isfinite(outputs).all(axis=1), begins)
    clean = np.nan_to_num(outputs, nan=0.0, posinf=0.0, neginf=0.0)
    largest = np.maximum.reduceat(np.abs(clean).max(axis=1), begins)
    tolerance = rule.tolerance * np.maximum(1.0, largest)
    counts = np.diff(np.append(begins, len(outputs)))
    scores = np.add.reduceat(_scores(clean, rule.activation), begins) / counts[:, None]
    evidence = _evidence(scores, rule.activation)
    order = _ranked(evidence, tie=tolerance * TIE)
    margin = evidence - _evidence(np.asarray(rule.threshold), rule.activation)
    shown = _shown(margin, rule=rule, tie=tolerance * TIE)
    settled = finite & _ranks_certain(
        evidence, order=order, shown=shown, rule=rule, tolerance=tolerance
    )
    if rule.multi_label and not rule.all_scores:
        settled &= (np.abs(margin) > tolerance[:, None]).all(axis=1)
    return LabelDecisions(order=order, scores=scores, shown=shown, finite=finite, settled=settled)


def _scores(outputs: Floats, activation: Activation) -> Floats:
    if activation is Activation.COSINE:
        return outputs
    if activation is Activation.SIGMOID:
        return np.asarray(0.5 * (1.0 + np.tanh(0.5 * outputs)))
    powers = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _evidence(scores: Floats, activation: Activation) -> Floats:
    """Logits, or cosines. Rounding moves them all alike; a probability near 0 or 1 hides it."""
    if activation is Activation.COSINE:
        return scores
    if activation is Activation.SOFTMAX:
        return np.log(np.maximum(scores, TINY))
    inside = np.clip(scores, TINY, NEARLY_ONE)
    return np.asarray(np.log(inside) - np.log1p(-inside))


def _ranked(evidence: Floats, *, tie: Floats) -> Indices:
    """Label indices, best first; neighbours that tie keep the order of the labels."""
    order = np.argsort(-evidence, axis=1, kind="stable")
    steps = -np.diff(np.take_along_axis(evidence, order, axis=1), axis=1) > tie[:, None]
    level = np.concatenate([np.zeros((len(order), 1), np.intp), np.cumsum(steps, axis=1)], axis=1)
    return np.take_along_axis(order, np.lexsort((order, level), axis=1), axis=1)


def _shown(margin: Floats, *, rule: LabelRule, tie: Floats) -> Indices:
    rows, labels = margin.shape
    if rule.all_scores:
        return np.full(rows, labels)
    if rule.multi_label:
        return np.asarray((margin >= -tie[:, None]).sum(axis=1), dtype=np.intp)
    return np.full(rows, min(rule.top_k, labels))


def _ranks_certain(
    evidence: Floats, *, order: Indices, shown: Indices, rule: LabelRule, tolerance: Floats
) -> Flags:
    """Whether every label shown is clearly apart from the next one in the order.

    The last one shown must be apart from the first that is not, unless a threshold divides them.
    """
    gaps = np.abs(np.diff(np.take_along_axis(evidence, order, axis=1), axis=1))
    counted = shown - 1 if rule.multi_label else shown
    matters = np.arange(gaps.shape[1]) < counted[:, None]
    return np.asarray((~matters | (gaps > tolerance[:, None])).all(axis=1))
