"""How the rows of a model may share a batch, once the probe has found out (decision 0028)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from workers.inference.batching.batcher import BatchLayout

LAYOUT_DESCRIPTIONS = {
    BatchLayout.PACKED: "packed, without padding",
    BatchLayout.PADDED: "padded to the longest",
    BatchLayout.EQUAL_LENGTH: "only rows of equal length together",
    BatchLayout.SINGLE: "each row alone",
}


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """How rows may share a batch, and why not more closely."""

    layout: BatchLayout
    resets: bool = False  # a forward pass changes the model, which is restored before each
    seeds: bool = False  # a forward pass draws random numbers, the same ones each time
    in_pieces: bool = True  # texts may leave and join a batch while they are generated
    reason: str = ""

    @classmethod
    def read(cls, value: Mapping[str, Any]) -> Self:
        """As ``fields`` wrote it. Raises ``ValueError``, ``TypeError`` or ``KeyError``."""
        fields = {**value}
        return cls(layout=BatchLayout(fields.pop("layout")), **fields)

    def fields(self) -> dict[str, Any]:
        """For JSON: the autotune cache and log lines."""
        return {
            "layout": self.layout,
            "resets": self.resets,
            "seeds": self.seeds,
            "in_pieces": self.in_pieces,
            "reason": self.reason,
        }

    def __str__(self) -> str:
        words = LAYOUT_DESCRIPTIONS[self.layout]
        return f"{words}: {self.reason}" if self.reason else words
