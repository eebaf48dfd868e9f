"""Windows through the device, batch by batch, within whatever memory there is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch

from jobs.rows import RowCode
from workers.inference import batching, memory
from workers.inference.decide import Floats
from workers.inference.family import Family, Padder
from workers.inference.reading import Reading, Window

Beat = Callable[[], None]


@dataclass(frozen=True, slots=True)
class RowError:
    """Why a row has no prediction."""

    code: RowCode
    message: str


@dataclass(slots=True)
class Row:
    """A text on its way: its windows, and for each a line of numbers once it was measured."""

    reading: Reading
    raw: Floats
    error: RowError | None = None

    @classmethod
    def of(cls, reading: Reading, *, labels: int) -> Self:
        """A row not measured yet; one without tokens is an error already."""
        row = cls(reading=reading, raw=np.full((len(reading.windows), labels), np.nan))
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
        self.budget = budget
        self._padder = padder

    def measure(self, rows: Sequence[Row], *, beat: Beat) -> None:
        """Fill in the rows' numbers, longest windows first; ``beat`` after every batch."""
        tasks = [_Task(row, place) for row in rows for place in range(len(row.reading.windows))]
        while tasks:
            tasks = self._until_memory_ends(tasks, beat=beat)

    def measure_alone(self, row: Row, *, beat: Beat) -> None:
        """Fill in a row's numbers anew, each window in a batch of its own."""
        for place in range(len(row.reading.windows)):
            self._measure([_Task(row, place)])
            beat()

    def _until_memory_ends(self, tasks: list[_Task], *, beat: Beat) -> list[_Task]:
        """Work the tasks off; those left when memory ran out, for a smaller budget."""
        lengths = [len(task.window.ids) for task in tasks]
        cuts = batching.cut(lengths, budget=self.budget, padding=self._padder.may_pad)
        batches = [[tasks[index] for index in batch] for batch in cuts]
        for number, batch in enumerate(batches):
            if not self._measure(batch):
                return [task for batch in batches[number:] for task in batch]
            beat()
        return []

    def _measure(self, batch: list[_Task]) -> bool:
        """Measure one batch; ``False``, with half the budget, if it must be tried in pieces."""
        try:
            raw = self._numbers([task.window for task in batch])
        except (RuntimeError, MemoryError) as error:
            if not memory.is_out_of_memory(error):
                raise
        else:
            for task, line in zip(batch, raw, strict=True):
                task.row.raw[task.place] = line
            return True
        # Out here, where the error no longer holds the tensors that did not fit.
        memory.give_back()
        return self._after_no_memory(batch)

    def _after_no_memory(self, batch: list[_Task]) -> bool:
        if len(batch) > 1:
            size = len(batch) * max(len(task.window.ids) for task in batch)
            self.budget = max(1, min(self.budget, size) // 2)
            return False
        tokens = len(batch[0].window.ids)
        message = f"a window of {tokens} tokens does not fit into the device's memory"
        batch[0].row.error = RowError(RowCode.OUT_OF_MEMORY, message)
        return True

    @torch.inference_mode()
    def _numbers(self, windows: list[Window]) -> Floats:
        inputs = self._padder.inputs(windows)
        return self.family.measure(inputs).float().cpu().numpy().astype(np.float64)
