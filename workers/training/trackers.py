"""The numbers of a training as it goes: what is told, and logged through Accelerate's trackers."""

from __future__ import annotations

import math
import time

import torch

from jobs.errors import JobFailure
from workers.training.checkpoint import TrainState, Window
from workers.training.dataloader import Step
from workers.training.messages import Teller
from workers.training.metrics import Report


class Curve:
    """Means and rates since the last point. Rank 0 tells them, for all."""

    def __init__(self, teller: Teller) -> None:
        self._teller = teller
        self._rows = self._tokens = 0
        self._since = time.monotonic()

    def count(self, step: Step) -> None:
        """A step is done."""
        self._rows += step.rows
        self._tokens += step.tokens

    def point(self, state: TrainState, *, norm: torch.Tensor | None, epoch_steps: int) -> None:
        """A point of the curve; every rank calls it. This waits for the device."""
        total = state.accelerator.reduce(state.window.loss, reduction="sum")
        loss = float(total) / state.window.steps
        state.window = Window(loss=torch.zeros_like(state.window.loss))
        if not math.isfinite(loss):
            raise JobFailure(
                f"the loss must be a number, and is {loss} at step {state.counters.step}: "
                "a lower learning rate or a longer warm-up may help",
                code="diverged",
            )
        values = {
            "loss": loss,
            "learning_rate": float(state.scheduler.get_last_lr()[0]),
            "epoch": state.counters.epoch + state.counters.place / epoch_steps,
            **({} if norm is None else {"gradient_norm": float(norm)}),
            **self._rates(),
        }
        self._publish(state, values)

    def evaluation(self, state: TrainState, report: Report) -> None:
        """The plain numbers of a report on the validation rows, without its counts."""
        numbers = {name: value for name, value in report.items() if isinstance(value, float)}
        self._publish(state, {f"validation/{name}": value for name, value in numbers.items()})

    def begin(self) -> None:
        """The first step is about to be done."""
        self._since = time.monotonic()

    def leave_out(self, seconds: float) -> None:
        """So much of the time was not training's."""
        self._since += seconds

    def _rates(self) -> dict[str, float]:
        seconds = max(time.monotonic() - self._since, 1e-9)
        found = {
            "samples_per_second": self._rows / seconds,
            "tokens_per_second": self._tokens / seconds,
        }
        self._rows = self._tokens = 0
        self._since = time.monotonic()
        return found

    def _publish(self, state: TrainState, values: dict[str, float]) -> None:
        if state.accelerator.is_main_process:
            self._teller.points(values)
        state.accelerator.log(values, step=state.counters.step)
