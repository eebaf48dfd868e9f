"""Which token a causal model writes next, and whether that hangs on a rounding error.

The choice of a row's token depends on that row alone: its scores, and, where it samples, on noise
drawn from the job's seed, the row's place in the corpus, and the step. So a row writes the same
text in whatever batch it stands, but for the last bits of its scores, which the shape of a batch
moves. A choice that such a movement could change is in doubt; rows with a doubt are written again,
alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn import functional
from transformers import LogitsProcessor

NOISE = 1e-4
"""How far batching may move the difference of two float32 scores, relative to the largest score (at
least 1): well above what is seen. Of probabilities at the least, as they are."""


COLD = 1e-6
"""Lower temperatures are the same: the likeliest token. A score divided by less may be infinite."""

DOUBLES = frozenset({"cpu", "cuda"})
"""Kinds of devices that draw float64."""

HEAD = 1_024
"""The likeliest tokens, among which a nucleus is looked for before all are sorted."""

LEAST, MOST = 2.0**-53, 1 - 2.0**-24
"""Between these a drawn number has finite noise."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """Temperature (above 0), nucleus (Holtzman et al. 2020) and the likeliest ``top_k``; 0: all."""

    temperature: float
    top_p: float
    top_k: int
    seed: int

    def seeds(self, row: int, *, steps: int) -> list[int]:
        """What the noise of each of a row's steps is drawn from."""
        chance = np.random.Generator(np.random.Philox(key=np.array([self.seed, row], np.uint64)))
        return [int(seed) for seed in chance.integers(2**32, size=steps)]


@dataclass(frozen=True, slots=True)
class Span:
    """Some steps of a row, from the ``first`` to before the ``end``, and how it samples in them."""

    row: int  # its place in the corpus
    sampling: Sampling | None
    first: int
    end: int

    def seeds(self) -> list[int]:
        """What the noise of each of these steps is drawn from."""
        assert self.sampling is not None
        return self.sampling.seeds(self.row, steps=self.end)[self.first :]


@dataclass(frozen=True, slots=True)
class _Drawn:
    """Rows of a batch that sample alike, but for their seeds."""

    sampling: Sampling
    places: torch.Tensor  # (rows,): in the batch
    seeds: list[list[int]]  # of each row and step


def _drawn(rows: Sequence[Span]) -> list[_Drawn]:
    alike: dict[Sampling, list[int]] = {}
    for place, row in enumerate(rows):
        if row.sampling is not None:
            alike.setdefault(replace(row.sampling, seed=0), []).append(place)
    return [
        _Drawn(sampling, torch.tensor(places), [rows[place].seeds() for place in places])
        for sampling, places in alike.items()
    ]


class Choosing(LogitsProcessor):
    """Chooses, step by step, for every row of a batch; remembers which choices are in doubt.

    Of each row there are equally many steps; where it does not sample, the likeliest token is
    chosen.
    """

    def __init__(self, rows: Sequence[Span]) -> None:
        self._drawn = _drawn(rows)
        self._greedy = any(row.sampling is None for row in rows)
        self._doubts: list[torch.Tensor] = []
        self._broken: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        """Scores (rows, vocabulary) of which only the chosen token's is not minus infinity."""
        scores = scores.float()
        self._broken.append(scores.isnan().any(dim=1))
        doubts = _near_tie(scores) if self._greedy else torch.empty_like(self._broken[-1])
        said = scores.clone() if self._drawn else scores
        for each in self._drawn:
            places, step = each.places.to(scores.device), len(self._doubts)
            noise = gumbel([seeds[step] for seeds in each.seeds], like=scores)
            chosen, doubts[places] = draw(scores[places], noise, each.sampling)
            said[places] = -math.inf
            said[places, chosen] = 0.0
        self._doubts.append(doubts)
        return said

    def doubts(self) -> torch.Tensor:
        """(rows, steps so far): the choice could have been another."""
        return torch.stack(self._doubts, dim=1).cpu()

    def broken(self) -> torch.Tensor:
        """(rows, steps so far): there was no choice, the scores were not numbers."""
        return torch.stack(self._broken, dim=1).cpu()


def gumbel(seeds: Sequence[int], *, like: torch.Tensor) -> torch.Tensor:
    """A row of standard Gumbel noise for each seed, as long as a row of ``like`` and where it is.

    The same seed gives the same noise on the same model of device, by the same release of torch.
    """
    where = like.device if like.device.type in DOUBLES else torch.device("cpu")
    chance = torch.Generator(where)
    drawn = torch.empty(len(seeds), like.shape[1], device=where)
    for line, seed in zip(drawn, seeds, strict=True):
        chance.manual_seed(seed)
        # In doubles: near 0, where winners come from, floats are dense.
        numbers = torch.rand(len(line), generator=chance, dtype=torch.float64, device=where)
        line.copy_(numbers.clamp_(min=LEAST))
    noise = drawn.clamp_(max=MOST).neg_().log1p_().neg_().log_().neg_()
    return noise.to(like.device)


def draw(
    scores: torch.Tensor, noise: torch.Tensor, sampling: Sampling
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens (rows,), and which are in doubt, from scores and Gumbel noise (rows, vocabulary).

    The largest sum of score and noise is a draw from the softmax (the Gumbel-max trick: Maddison,
    Tarlow and Minka 2014, A* Sampling). Small movements of the scores move it only where two sums
    are nearly equal, however many tokens there are; and which tokens may be sampled matters only
    for the one that is chosen.
    """
    temperature = max(sampling.temperature, COLD)
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
    """Between scores of tokens that may be sampled and of those that may not, (rows, 1) each."""

    exact: torch.Tensor  # may be sampled from here on, by these very scores
    low: torch.Tensor  # below it a token may not, however the scores move
    high: torch.Tensor  # above it a token may


def _edge(scores: torch.Tensor, slack: torch.Tensor, sampling: Sampling) -> _Edge:
    """By top-k, and in what that leaves by the nucleus."""
    size = scores.shape[1]
    count = sampling.top_k if 0 < sampling.top_k < size else size
    if count == size and sampling.top_p >= 1:
        none = torch.full_like(slack, -math.inf)
        return _Edge(none, none, none)
    ordered = scores.topk(min(HEAD, size) if count == size else count + 1, dim=1).values
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
    """The share that is kept, the most and the least that it may come to, (rows, 1) each.

    Scores that move multiply the odds of a share by the exponential of their movement.
    """
    exact = torch.full_like(slack, share)
    if share >= 1:
        exact.fill_(math.inf)  # a sum of rounded shares may be more than 1
        return exact, exact, exact
    odds = exact.logit()
    more = torch.maximum((odds + slack).sigmoid(), exact + NOISE)
    return exact, more, torch.minimum((odds - slack).sigmoid(), exact - NOISE)


def _before(ordered: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """The share of all chances that comes before each, from log chances; ``whole`` is their sum."""
    shares = (ordered - whole).exp()
    return shares.cumsum(dim=1) - shares


def _near_tie(scores: torch.Tensor) -> torch.Tensor:
    best = scores.topk(2, dim=1).values
    return best[:, 0] - best[:, 1] < _slack(scores)[:, 0]


def _slack(scores: torch.Tensor) -> torch.Tensor:
    """(rows, 1): how far batching may move the differences of each row's scores."""
    return NOISE * scores.amax(dim=1, keepdim=True).abs().clamp(min=1.0)
