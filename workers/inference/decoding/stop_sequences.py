"""Where a generated text ends: at an end-of-text token, at a stop sequence, or not yet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, StoppingCriteria

from jobs.progress import Beat

MAX_TOKENS_PER_CHARACTER = 4
"""A character of a stop sequence takes at most as many tokens as it has bytes in UTF-8."""

MARGIN = 8
"""Tokens that are decoded before those: the first tokens of a text may be decoded differently."""


class StopSequences:
    """Stop sequences: texts that end an output. They may be names of special tokens."""

    def __init__(self, texts: Sequence[str], *, tokenizer: PreTrainedTokenizerBase) -> None:
        self.texts = tuple(texts)
        self._tokenizer: Any = tokenizer
        self._tail = MAX_TOKENS_PER_CHARACTER * max(map(len, texts), default=0) + MARGIN

    def matches(self, new_tokens: Sequence[int]) -> bool:
        """Whether the end of the new tokens contains a whole stop sequence."""
        if not self.texts:
            return False
        tail = list(new_tokens[-self._tail :])
        plain, whole = (
            self._tokenizer.decode(tail, skip_special_tokens=skip) for skip in (True, False)
        )
        return any(text in plain or text in whole for text in self.texts)

    def truncate(self, output: str) -> str:
        """The output up to the first stop sequence."""
        positions = [position for text in self.texts if (position := output.find(text)) >= 0]
        return output[: min(positions, default=None)]


class EndOfTextCriteria(StoppingCriteria):
    """A row is done at one of the tokens ``ends``, or at a stop sequence.

    A row's new tokens begin at its column of ``starts``; with beams each entry counts for as many
    rows as there are beams. With ``pause`` all rows are done as soon as this share of them is.
    """

    def __init__(
        self,
        ends: torch.Tensor,
        *,
        stop_sequences: StopSequences,
        starts: Sequence[int],
        pause: float | None = None,
    ) -> None:
        self._ends = ends
        self._stop_sequences = stop_sequences
        self._starts = starts
        self._pause = pause
        self._ended: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:  # noqa: ARG002
        """(rows,): which are done now."""
        done = torch.isin(input_ids[:, -1], self._ends)
        if self._stop_sequences.texts:
            beams = len(input_ids) // len(self._starts)
            stopped = [
                self._stop_sequences.matches(ids[self._starts[row // beams] :])
                for row, ids in enumerate(input_ids.tolist())
            ]
            done |= torch.tensor(stopped, device=done.device)
        if self._pause is None:
            return done
        self._ended = done if self._ended is None else self._ended | done
        return done | (self._ended.sum() >= self._pause * len(done))


class HeartbeatCriteria(StoppingCriteria):
    """Calls ``beat`` after every token. It ends the work only by an exception from ``beat``."""

    def __init__(self, beat: Beat) -> None:
        self._beat = beat

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:  # noqa: ARG002
        """No row is done."""
        self._beat()
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
