"""A chunk's texts through a model once.

Tokenized ahead of the device in a thread, longest first, cut into batches by a token budget. Memory
is bounded by the budget, but for what the caller keeps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from jobs.results.schemas import RowCode
from workers import time_limits
from workers.bulk.prefetch import prefetch
from workers.inference import row_isolation
from workers.inference.batching.forward import Beat, Meter, Row, RowError
from workers.inference.batching.tokenization import Item, Reading, slices


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
        self._tally = row_isolation.Tally("the tokenizer")

    def rows(self, texts: Sequence[Item], *, beat: Beat) -> list[Row]:
        """Every text's row with its numbers, or its error, in the order of the texts."""
        rows: dict[int, Row] = {}
        for group in self.groups(texts, beat=beat):
            rows.update(group)
        return [rows[place] for place in range(len(texts))]

    def groups(self, texts: Sequence[Item], *, beat: Beat) -> Iterator[dict[int, Row]]:
        """The same, some rows at a time by their text's place, for who keeps less than rows."""
        with prefetch(self._readings(texts)) as groups:
            for group in groups:
                rows = {
                    place: Row.of(reading, numbers=self._numbers)
                    for place, reading in group.items()
                }
                self._meter.measure(list(rows.values()), beat=beat)
                yield rows

    def _readings(self, texts: Sequence[Item]) -> Iterator[dict[int, Reading | RowError]]:
        """Tokenized texts by their place, a slice at a time; runs in the thread ahead."""
        for places in slices(texts, budget=self._meter.budget):
            readings = self._read([texts[place] for place in places])
            yield dict(zip(places, readings, strict=True))

    def _read(self, texts: list[Item]) -> list[Reading | RowError]:
        """A reading for each; texts that raise together are read in halves."""
        try:
            with time_limits.reading():
                readings = self._reader.read(texts)
        except BaseException as error:  # noqa: BLE001 - what is no row's fault is raised by check
            row_isolation.check(error)
            if len(texts) == 1:
                why = self._tally.raised(row_isolation.reason(error))
                return [RowError(RowCode.ROW_FAILED, why)]
        else:
            self._tally.answered(len(texts))
            return list(readings)
        middle = len(texts) // 2
        return [*self._read(texts[:middle]), *self._read(texts[middle:])]
