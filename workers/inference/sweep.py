"""A chunk's texts through a model once.

Tokenized ahead of the device in a thread, longest first, cut into batches by a token budget. Memory
is bounded by the budget, but for what the caller keeps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from workers.ahead import ahead
from workers.inference.measuring import Beat, Meter, Row
from workers.inference.reading import Item, Reading, slices


class Reads(Protocol):
    """What makes tokens of texts, or of pairs of them."""

    def read(self, texts: Sequence[Any], /) -> list[Reading]:
        """One reading each, in order."""


class Sweep:
    """A model and its reader; ``numbers`` is how many the model says of each window."""

    def __init__(self, meter: Meter, *, reader: Reads, numbers: int) -> None:
        self._meter = meter
        self._reader = reader
        self._numbers = numbers

    def rows(self, texts: Sequence[Item], *, beat: Beat) -> list[Row]:
        """Every text's row with its numbers, or its error, in the order of the texts."""
        rows: dict[int, Row] = {}
        for group in self.groups(texts, beat=beat):
            rows.update(group)
        return [rows[place] for place in range(len(texts))]

    def groups(self, texts: Sequence[Item], *, beat: Beat) -> Iterator[dict[int, Row]]:
        """The same, some rows at a time by their text's place, for who keeps less than rows."""
        with ahead(self._readings(texts)) as groups:
            for group in groups:
                rows = {
                    place: Row.of(reading, numbers=self._numbers)
                    for place, reading in group.items()
                }
                self._meter.measure(list(rows.values()), beat=beat)
                yield rows

    def _readings(self, texts: Sequence[Item]) -> Iterator[dict[int, Reading]]:
        """Tokenized texts by their place, a slice at a time; runs in the thread ahead."""
        for places in slices(texts, budget=self._meter.budget):
            readings = self._reader.read([texts[place] for place in places])
            yield dict(zip(places, readings, strict=True))
