"""Which token a causal model writes next, and whether that hangs on a rounding error.

The choice of a row's token depends on that row alone: its scores, and, where it samples, a number
between 0 and 1 for each of its steps, drawn from the job's seed and the row's place in the corpus.
So a row writes the same text in whatever batch it stands, but for the last bits of its scores,
which the shape of a batch moves. A choice that such a movement could change is in doubt; rows with
a doubt are written again, alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from transformers import LogitsProcessor

NOISE = 1e-4
"""How far batching may move a float32 score, relative to the largest (at least 1): well above what
is seen. Of probabilities, as they are."""


COLD = 1e-6
"""Lower temperatures are the same: the likeliest token. A score divided by less may be infinite."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """Temperature (above 0), nucleus (Holtzman et al. 2020) and the likeliest ``top_k``; 0: all."""

    temperature: float
    top_p: float
    top_k: int
    seed: int

    def numbers(self, row: int, *, steps: int) -> torch.Tensor:
        """A row's numbers in [0, 1), one for each of its steps."""
        chance = np.random.Generator(np.random.Philox(key=np.array([self.seed, row], np.uint64)))
        return torch.from_numpy(chance.random(steps))


@dataclass(frozen=True, slots=True)
class Span:
    """Some steps of a row, from the ``first`` to before the ``end``, and how it samples in them."""

    row: int  # its place in the corpus
    sampling: Sampling | None
    first: int
    end: int

    def numbers(self) -> torch.Tensor:
        """The row's numbers for these steps."""
        assert self.sampling is not None
        return self.sampling.numbers(self.row, steps=self.end)[self.first :]


@dataclass(frozen=True, slots=True)
class _Drawn:
    """Rows of a batch that sample alike, but for their seeds."""

    sampling: Sampling
    places: torch.Tensor  # (rows,): in the batch
    numbers: torch.Tensor  # (rows, steps)


def _drawn(rows: Sequence[Span]) -> list[_Drawn]:
    alike: dict[Sampling, list[int]] = {}
    for place, row in enumerate(rows):
        if row.sampling is not None:
            alike.setdefault(replace(row.sampling, seed=0), []).append(place)
    return [
        _Drawn(
            sampling,
            torch.tensor(places),
            torch.stack([rows[place].numbers() for place in places]),
        )
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
            places = each.places.to(scores.device)
            number = each.numbers[:, len(self._doubts)].to(scores.device, torch.float32)
            chosen, doubts[places] = draw(scores[places], number, each.sampling)
            said[places] = float("-inf")
            said[places, chosen] = 0.0
        self._doubts.append(doubts)
        return said

    def doubts(self) -> torch.Tensor:
        """(rows, steps so far): the choice could have been another."""
        return torch.stack(self._doubts, dim=1).cpu()

    def broken(self) -> torch.Tensor:
        """(rows, steps so far): there was no choice, the scores were not numbers."""
        return torch.stack(self._broken, dim=1).cpu()


def draw(
    scores: torch.Tensor, number: torch.Tensor, sampling: Sampling
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens (rows,), and which are in doubt, from scores (rows, vocabulary) and a number each.

    The number is looked up in the cumulative probabilities, in the vocabulary's order, of the
    tokens that may be sampled.
    """
    scores = scores / max(sampling.temperature, COLD)
    chances = scores.softmax(dim=1)
    doubt = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    if 0 < sampling.top_k < scores.shape[1]:
        chances, unsure = _likeliest(chances, scores=scores, count=sampling.top_k)
        doubt |= unsure
    if sampling.top_p < 1:
        chances, unsure = _nucleus(chances, scores=scores, share=sampling.top_p)
        doubt |= unsure
    ends = chances.cumsum(dim=1)
    total = ends[:, -1]
    place = (number * total).unsqueeze(1)
    chosen = torch.searchsorted(ends, place, right=True).clamp(max=ends.shape[1] - 1)
    end = ends.gather(1, chosen)
    begin = end - chances.gather(1, chosen)
    nearest = torch.minimum(place - begin, end - place).squeeze(1) / total
    return chosen.squeeze(1), doubt | (nearest < 2 * NOISE)


def _near_tie(scores: torch.Tensor) -> torch.Tensor:
    best = scores.topk(2, dim=1).values
    return best[:, 0] - best[:, 1] < _noise(scores)


def _noise(scores: torch.Tensor) -> torch.Tensor:
    """(rows,): how far batching may move each row's scores."""
    return NOISE * scores.amax(dim=1).abs().clamp(min=1.0)


def _likeliest(
    chances: torch.Tensor, *, scores: torch.Tensor, count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The ``count`` likeliest tokens' chances; it matters which is the last if it has any."""
    best = scores.topk(count + 1, dim=1).values
    last, following = best[:, -2:-1], best[:, -1:]
    close = last - following < _noise(scores).unsqueeze(1)
    kept = chances.masked_fill(scores < last, 0.0)
    matters = (chances.masked_fill(scores != last, 0.0) > NOISE).any(dim=1)
    return kept / kept.sum(dim=1, keepdim=True), close.squeeze(1) & matters


def _nucleus(
    chances: torch.Tensor, *, scores: torch.Tensor, share: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The likeliest tokens that together reach ``share``: those before which it is not reached.

    It matters how many they are, and, where the last of them is hardly likelier than the next one,
    which; both only of tokens that have a chance.
    """
    ordered, order = chances.sort(dim=1, descending=True, stable=True)
    before = ordered.cumsum(dim=1) - ordered
    outside = before >= share
    unsure = (((before - share).abs() < NOISE) & (ordered > NOISE)).any(dim=1)
    last = ordered.masked_fill(outside, 1.0).amin(dim=1)
    following = ordered.masked_fill(~outside, 0.0).amax(dim=1)
    close = (last - following < last * _noise(scores)) & (last > NOISE)
    kept = ordered.masked_fill(outside, 0.0)
    return torch.zeros_like(chances).scatter(1, order, kept), unsure | close
