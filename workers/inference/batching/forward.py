"""Windows through the device, batch by batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch

from jobs.results.schemas import RowCode
from workers.inference.batching.collator import Family, Padder
from workers.inference.batching.token_budget import Budget, Work
from workers.inference.batching.tokenization import Reading, Window
from workers.inference.heads.label_decision import Floats

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
    def of(cls, reading: Reading | RowError, *, numbers: int) -> Self:
        """A row not measured yet; one that could not be read is an error already."""
        if isinstance(reading, RowError):
            return cls(Reading(windows=(), truncated=False), np.empty((0, numbers)), error=reading)
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

    def __init__(self, family: Family, *, padder: Padder, budget: Budget) -> None:
        self.family = family
        self._budget = budget
        self._padder = padder

    @property
    def budget(self) -> int:
        """Tokens that may go through the device at once."""
        return self._budget.largest

    def measure(self, rows: Sequence[Row], *, beat: Beat) -> None:
        """Fill in the rows' numbers, longest windows first; ``beat`` after every batch."""
        tasks = [_Task(row, place) for row in rows for place in range(len(row.reading.windows))]
        flights = _Flights()
        self._budget.do(tasks, self._work(flights, beat=beat))
        flights.land()

    def measure_alone(self, row: Row, *, beat: Beat) -> None:
        """Fill in a row's numbers anew, each window in a batch of its own."""
        flights = _Flights()
        for place in range(len(row.reading.windows)):
            self._budget.alone(_Task(row, place), self._work(flights, beat=beat))
        flights.land()

    def _work(self, flights: _Flights, *, beat: Beat) -> Work[_Task]:
        return Work(
            length=lambda task: len(task.window.ids),
            run=lambda batch: flights.start(batch, self._numbers(batch)),
            refuse=_refuse,
            fail=_fail,
            beat=beat,
            finish=flights.land,
            fill=self._padder.fill,
        )

    @torch.inference_mode()
    def _numbers(self, batch: list[_Task]) -> torch.Tensor:
        inputs = self._padder.inputs([task.window for task in batch])
        return self.family.measure(inputs).float()


class _Flights:
    """Numbers on their way from the device: a GPU goes on with the next batch meanwhile."""

    def __init__(self) -> None:
        self._under_way: deque[tuple[list[_Task], torch.Tensor, torch.cuda.Event | None]] = deque()

    def start(self, batch: list[_Task], numbers: torch.Tensor) -> None:
        """Send a batch's numbers home; those of the batch before it arrive."""
        landing = None
        if numbers.is_cuda:
            home = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
            numbers = home.copy_(numbers, non_blocking=True)
            landing = torch.cuda.current_stream().record_event()
        self._under_way.append((batch, numbers, landing))
        self.land(but=1 if landing else 0)

    def land(self, *, but: int = 0) -> None:
        """Wait for numbers and fill them in; those of the last ``but`` batches stay under way."""
        while len(self._under_way) > but:
            batch, numbers, landing = self._under_way.popleft()
            if landing is not None:
                landing.synchronize()
            for task, line in zip(batch, numbers.cpu().double().numpy(), strict=True):
                task.row.raw[task.place] = line


def _refuse(task: _Task) -> None:
    message = f"a window of {len(task.window.ids)} tokens does not fit into the device's memory"
    task.row.error = RowError(RowCode.OUT_OF_MEMORY, message)


def _fail(task: _Task, message: str) -> None:
    task.row.error = RowError(RowCode.ROW_FAILED, message)
