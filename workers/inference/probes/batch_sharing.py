"""How rows may share a batch of a model, once that is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from workers.inference.batching.batcher import Fill

WORDS = {
    Fill.PACK: "packed, without padding",
    Fill.PAD: "padded to the longest",
    Fill.LENGTH: "only rows of equal length together",
    Fill.ALONE: "each row alone",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """How rows may share a batch, and why not more closely."""

    fill: Fill
    resets: bool = False  # a forward pass changes the model, which is put back before each
    seeds: bool = False  # a forward pass draws random numbers, the same ones for each
    in_pieces: bool = True  # texts that are being written may leave a batch and join it
    reason: str = ""

    @classmethod
    def read(cls, value: Mapping[str, Any]) -> Self:
        """As ``fields`` wrote it. Raises ``ValueError``, ``TypeError`` or ``KeyError``."""
        return cls(**{**value, "fill": Fill(value["fill"])})

    def fields(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        words = WORDS[self.fill]
        return f"{words}: {self.reason}" if self.reason else words
