"""Sampling of the next token by Gumbel noise, and whether it depends on a rounding error.

The choice of a row's token depends on that row alone: on its scores, and, where it samples, on
noise drawn from the job's seed, the row's number in the corpus, and the step (decision 0018). So a
row has the same text in every batch, but for the last bits of its scores, which the shape of a
batch changes. A choice that such a change could alter is in doubt; rows with a choice in doubt are
generated again, alone (promise P6).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn import functional
from transformers import LogitsProcessor

ROUNDING_TOLERANCE = 1e-4
"""How far batching may change the difference of two float32 scores, relative to the largest score
(at least 1): well above what is observed. For probabilities it is absolute, and a minimum."""

MIN_TEMPERATURE = 1e-6
"""Lower temperatures are clamped to this: the likeliest token. A smaller divisor may overflow."""

FLOAT64_DEVICES = frozenset({"cpu", "cuda"})
"""Types of devices that can draw float64."""

NUCLEUS_CANDIDATES = 1_024
"""The number of likeliest tokens in which the nucleus is searched before all tokens are sorted."""

UNIFORM_MIN, UNIFORM_MAX = 2.0**-53, 1 - 2.0**-24
"""Uniform samples between these have finite Gumbel noise."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """Temperature (above 0), nucleus ``top_p`` (Holtzman et al. 2020), ``top_k``; 0: all."""

    temperature: float
    top_p: float
    top_k: int
    seed: int

    def seeds(self, row: int, *, steps: int) -> list[int]:
        """The seed of the noise of each of a row's steps."""
        random = np.random.Generator(np.random.Philox(key=np.array([self.seed, row], np.uint64)))
        return [int(seed) for seed in random.integers(2**32, size=steps)]


@dataclass(frozen=True, slots=True)
class StepRange:
    """Steps of a row, from ``first`` up to but not including ``end``, and how they are sampled."""

    row: int  # its number in the corpus
    sampling: Sampling | None
    first: int
    end: int

    def seeds(self) -> list[int]:
        """The seed of the noise of each of these steps."""
        assert self.sampling is not None
        return self.sampling.seeds(self.row, steps=self.end)[self.first :]


@dataclass(frozen=True, slots=True)
class _SampledRows:
    """Rows of a batch with the same sampling settings, but for their seeds."""

    sampling: Sampling
    indices: torch.Tensor  # (rows,): in the batch
    seeds: list[list[int]]  # of each row and step


def _sampled_rows(rows: Sequence[StepRange]) -> list[_SampledRows]:
    groups: dict[Sampling, list[int]] = {}
    for index, row in enumerate(rows):
        if row.sampling is not None:
            groups.setdefault(replace(row.sampling, seed=0), []).append(index)
    return [
        _SampledRows(sampling, torch.tensor(indices), [rows[index].seeds() for index in indices])
        for sampling, indices in groups.items()
    ]


class TokenChoiceProcessor(LogitsProcessor):
    """Chooses a token for every row of a batch at each step, and records which are in doubt.

    All rows have the same number of steps. Where a row does not sample, its likeliest token is
    chosen.
    """

    def __init__(self, rows: Sequence[StepRange]) -> None:
        self._sampled = _sampled_rows(rows)
        self._greedy = any(row.sampling is None for row in rows)
        self._doubts: list[torch.Tensor] = []
        self._not_finite: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        """Scores (rows, vocabulary); a sampled row has minus infinity but for its chosen token."""
        scores = scores.float()
        self._not_finite.append(scores.isnan().any(dim=1))
        doubts = _near_tie(scores) if self._greedy else torch.empty_like(self._not_finite[-1])
        processed = scores.clone() if self._sampled else scores
        for rows in self._sampled:
            indices, step = rows.indices.to(scores.device), len(self._doubts)
            noise = gumbel([seeds[step] for seeds in rows.seeds], like=scores)
            chosen, doubts[indices] = draw(scores[indices], noise, rows.sampling)
            processed[indices] = -math.inf
            processed[indices, chosen] = 0.0
        self._doubts.append(doubts)
        return processed

    def doubts(self) -> torch.Tensor:
        """(rows, steps so far): the choice could have been another."""
        return torch.stack(self._doubts, dim=1).cpu()

    def not_finite(self) -> torch.Tensor:
        """(rows, steps so far): a score was NaN, so that no token could be chosen."""
        return torch.stack(self._not_finite, dim=1).cpu()


def gumbel(seeds: Sequence[int], *, like: torch.Tensor) -> torch.Tensor:
    """A row of standard Gumbel noise for each seed, in the width and on the device of ``like``.

    The same seed gives the same noise on the same device model, with the same release of torch.
    """
    device = like.device if like.device.type in FLOAT64_DEVICES else torch.device("cpu")
    random = torch.Generator(device)
    uniform = torch.empty(len(seeds), like.shape[1], device=device)
    for row, seed in zip(uniform, seeds, strict=True):
        random.manual_seed(seed)
        # In float64: the largest noise comes from samples near 0, where float32 values are dense.
        samples = torch.rand(len(row), generator=random, dtype=torch.float64, device=device)
        row.copy_(samples.clamp_(min=UNIFORM_MIN))
    noise = uniform.clamp_(max=UNIFORM_MAX).neg_().log1p_().neg_().log_().neg_()
    return noise.to(like.device)


def draw(
    scores: torch.Tensor, noise: torch.Tensor, sampling: Sampling
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens (rows,), and which are in doubt, from scores and Gumbel noise (rows, vocabulary).

    The token with the largest sum of score and noise is a sample from the softmax (the Gumbel-max
    trick: Maddison, Tarlow and Minka 2014, A* Sampling). Small changes of the scores change it only
    where two sums are nearly equal, however many tokens there are; and the edge of the nucleus
    matters only for the chosen token.
    """
    temperature = max(sampling.temperature, MIN_TEMPERATURE)
    scores, slack = scores / temperature, _slack(scores) / temperature
    edge = _edge(scores, slack, sampling)
    sums = scores + noise
    best, order = sums.masked_fill(scores < edge.low, -math.inf).topk(2, dim=1)
    close = best[:, 0] - best[:, 1] < slack[:, 0]
    unsure = scores.gather(1, order[:, :1]) <= edge.high
    chosen = sums.masked_fill_(scores < edge.exact, -math.inf).argmax(dim=1)
    return chosen, close | unsure[:, 0]


@dataclass(frozen=True, slots=True)
class _Edge:
    """The lowest score that may be sampled, (rows, 1) each."""

    exact: torch.Tensor  # by these scores
    low: torch.Tensor  # a token below it may not be sampled, however the scores change
    high: torch.Tensor  # a token above it may be sampled, however the scores change


def _edge(scores: torch.Tensor, slack: torch.Tensor, sampling: Sampling) -> _Edge:
    """By top-k, and by the nucleus within these."""
    size = scores.shape[1]
    count = sampling.top_k if 0 < sampling.top_k < size else size
    if count == size and sampling.top_p >= 1:
        none = torch.full_like(slack, -math.inf)
        return _Edge(none, none, none)
    ordered = scores.topk(
        min(NUCLEUS_CANDIDATES, size) if count == size else count + 1, dim=1
    ).values
    whole = (scores if count == size else ordered[:, :count]).logsumexp(dim=1, keepdim=True)
    share, more, less = _nucleus(sampling.top_p, slack)
    if count == size and not (_before(ordered, whole)[:, -1:] > more).all():
        ordered = scores.sort(dim=1, descending=True).values
    before = _before(ordered[:, :count], whole)
    exact, many, few = (
        (before < each).sum(dim=1, keepdim=True).clamp(min=1) for each in (share, more, less)
    )
    following = functional.pad(ordered, (0, 1), value=-math.inf)
    return _Edge(
        exact=ordered.gather(1, exact - 1),
        low=ordered.gather(1, many - 1) - slack,
        high=following.gather(1, few) + slack,
    )


def _nucleus(share: float, slack: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The share of the nucleus, and the most and the least that it may be, (rows, 1) each.

    A change of the scores multiplies the odds of a share by the exponential of the change.
    """
    exact = torch.full_like(slack, share)
    if share >= 1:
        exact.fill_(math.inf)  # a sum of rounded shares may be more than 1
        return exact, exact, exact
    odds = exact.logit()
    more = torch.maximum((odds + slack).sigmoid(), exact + ROUNDING_TOLERANCE)
    return exact, more, torch.minimum((odds - slack).sigmoid(), exact - ROUNDING_TOLERANCE)


def _before(ordered: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """The probability before each token, from log probabilities; ``whole`` is their logsumexp."""
    shares = (ordered - whole).exp()
    return shares.cumsum(dim=1) - shares


def _near_tie(scores: torch.Tensor) -> torch.Tensor:
    best = scores.topk(2, dim=1).values
    return best[:, 0] - best[:, 1] < _slack(scores)[:, 0]


def _slack(scores: torch.Tensor) -> torch.Tensor:
    """(rows, 1): how far batching may change the differences of each row's scores."""
    return ROUNDING_TOLERANCE * scores.amax(dim=1, keepdim=True).abs().clamp(min=1.0)
