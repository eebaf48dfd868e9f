"""Metrics during a training: sent to the agent, and logged through Accelerate's trackers."""

from __future__ import annotations

import math
import time

import torch

from jobs.errors import JobFailure
from workers.training.checkpoint import MetricWindow, TrainState
from workers.training.dataloader import TrainingStep
from workers.training.messages import MessageWriter
from workers.training.metrics import Report


class MetricTracker:
    """Mean loss and throughput since the last point. Rank 0 reports them for all ranks."""

    def __init__(self, messages: MessageWriter) -> None:
        self._messages = messages
        self._rows = self._tokens = 0
        self._since = time.monotonic()

    def count(self, step: TrainingStep) -> None:
        """Count the rows and tokens of a step."""
        self._rows += step.rows
        self._tokens += step.tokens

    def point(self, state: TrainState, *, norm: torch.Tensor | None, epoch_steps: int) -> None:
        """Report a point; a collective call, which waits for the device."""
        total = state.accelerator.reduce(state.window.loss, reduction="sum")
        loss = float(total) / state.window.steps
        state.window = MetricWindow(loss=torch.zeros_like(state.window.loss))
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
        """Report the metrics of an evaluation on the validation rows, without its counts."""
        metrics = {name: value for name, value in report.items() if isinstance(value, float)}
        self._publish(state, {f"validation/{name}": value for name, value in metrics.items()})

    def begin(self) -> None:
        """Start the clock before the first step."""
        self._since = time.monotonic()

    def exclude(self, seconds: float) -> None:
        """Leave this time, spent on evaluation or a checkpoint, out of the throughput."""
        self._since += seconds

    def _rates(self) -> dict[str, float]:
        seconds = max(time.monotonic() - self._since, 1e-9)
        rates = {
            "samples_per_second": self._rows / seconds,
            "tokens_per_second": self._tokens / seconds,
        }
        self._rows = self._tokens = 0
        self._since = time.monotonic()
        return rates

    def _publish(self, state: TrainState, values: dict[str, float]) -> None:
        if state.accelerator.is_main_process:
            self._messages.points(values)
        state.accelerator.log(values, step=state.counters.step)
