"""Where a text that a model writes ends: by a token, by a stop text, or not yet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, StoppingCriteria

from workers.inference.batching.forward import Beat

BYTES = 4
"""Tokens that one character of a stop text may take: as many as it has bytes in UTF-8."""

MARGIN = 8
"""Tokens that are looked at before them: what begins a text may be decoded differently."""


class Stops:
    """Texts that end an output, which may be names of special tokens."""

    def __init__(self, texts: Sequence[str], *, tokenizer: PreTrainedTokenizerBase) -> None:
        self.texts = tuple(texts)
        self._tokenizer: Any = tokenizer
        self._tail = BYTES * max(map(len, texts), default=0) + MARGIN

    def end(self, new: Sequence[int]) -> bool:
        """Whether the last of these new tokens says one of them to its end, or has before."""
        if not self.texts:
            return False
        tail = list(new[-self._tail :])
        plain, whole = (
            self._tokenizer.decode(tail, skip_special_tokens=skip) for skip in (True, False)
        )
        return any(text in plain or text in whole for text in self.texts)

    def before(self, said: str) -> str:
        """The text up to the first of them."""
        places = [place for text in self.texts if (place := said.find(text)) >= 0]
        return said[: min(places, default=None)]


class Ending(StoppingCriteria):
    """A row is done when it says one of the tokens ``ends``, or a stop text.

    Its new tokens begin at its place of ``starts``; each has as many rows as there are beams. With
    ``pause`` all rows are done as soon as this share of them is.
    """

    def __init__(
        self,
        ends: torch.Tensor,
        *,
        stops: Stops,
        starts: Sequence[int],
        pause: float | None = None,
    ) -> None:
        self._ends = ends
        self._stops = stops
        self._starts = starts
        self._pause = pause
        self._done: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:  # noqa: ARG002
        """(rows,): which are done now."""
        said = torch.isin(input_ids[:, -1], self._ends)
        if self._stops.texts:
            beams = len(input_ids) // len(self._starts)
            stopped = [
                self._stops.end(ids[self._starts[row // beams] :])
                for row, ids in enumerate(input_ids.tolist())
            ]
            said |= torch.tensor(stopped, device=said.device)
        if self._pause is None:
            return said
        self._done = said if self._done is None else self._done | said
        return said | (self._done.sum() >= self._pause * len(said))


class Beating(StoppingCriteria):
    """Shows after every token that the work goes on; stops nothing but by what ``beat`` raises."""

    def __init__(self, beat: Beat) -> None:
        self._beat = beat

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:  # noqa: ARG002
        """No row is done."""
        self._beat()
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
