"""Windows through the device, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch

from jobs.rows import RowCode
from workers.inference.budget import Budget, Work
from workers.inference.decide import Floats
from workers.inference.family import Family, Padder
from workers.inference.reading import Reading, Window

Beat = Callable[[], None]


@dataclass(frozen=True, slots=True)
class RowError:
    """Why a row has no prediction."""

    code: RowCode
    message: str


NOT_FINITE = RowError(RowCode.NOT_FINITE, "the model's numbers for this text are not finite")


@dataclass(slots=True)
class Row:
    """A text on its way: its windows, and for each a line of numbers once it was measured."""

    reading: Reading
    raw: Floats
    error: RowError | None = None

    @classmethod
    def of(cls, reading: Reading, *, numbers: int) -> Self:
        """A row not measured yet; one without tokens is an error already."""
        row = cls(reading=reading, raw=np.full((len(reading.windows), numbers), np.nan))
        if not reading.windows:
            row.error = RowError(RowCode.NO_TOKENS, "the tokenizer makes no token of this text")
        return row


@dataclass(frozen=True, slots=True)
class _Task:
    row: Row
    place: int

    @property
    def window(self) -> Window:
        return self.row.reading.windows[self.place]


class Meter:
    """A model on its device, and the token budget that its memory has borne so far."""

    def __init__(self, family: Family, *, padder: Padder, budget: int) -> None:
        self.family = family
        self._budget = Budget(budget)
        self._padder = padder

    @property
    def budget(self) -> int:
        """Tokens that go through the device at once."""
        return self._budget.tokens

    def measure(self, rows: Sequence[Row], *, beat: Beat) -> None:
        """Fill in the rows' numbers, longest windows first; ``beat`` after every batch."""
        tasks = [_Task(row, place) for row in rows for place in range(len(row.reading.windows))]
        self._budget.do(tasks, self._work(beat))

    def measure_alone(self, row: Row, *, beat: Beat) -> None:
        """Fill in a row's numbers anew, each window in a batch of its own."""
        for place in range(len(row.reading.windows)):
            self._budget.alone(_Task(row, place), self._work(beat))

    def _work(self, beat: Beat) -> Work[_Task]:
        return Work(
            length=lambda task: len(task.window.ids),
            run=self._measure,
            refuse=_refuse,
            beat=beat,
            padding=self._padder.may_pad,
        )

    def _measure(self, batch: list[_Task]) -> None:
        raw = self._numbers([task.window for task in batch])
        for task, line in zip(batch, raw, strict=True):
            task.row.raw[task.place] = line

    @torch.inference_mode()
    def _numbers(self, windows: list[Window]) -> Floats:
        inputs = self._padder.inputs(windows)
        return self.family.measure(inputs).float().cpu().numpy().astype(np.float64)


def _refuse(task: _Task) -> None:
    message = f"a window of {len(task.window.ids)} tokens does not fit into the device's memory"
    task.row.error = RowError(RowCode.OUT_OF_MEMORY, message)
