"""What is counted of a run by the agent of its rank 0: steps, their time, the loss."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from jobs.monitoring import catalogue, meters
from workers.gang.program import Message

LOSS = "loss"


def no_run() -> None:
    """There is no loss before a run begins, nor after it has ended."""
    meters.level(catalogue.TRAINING_LOSS, math.nan)


class StepMeter:
    """Counts the steps from one message of a program to the next."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._step: int | None = None
        self._at = 0.0
        no_run()

    def take(self, message: Message) -> None:
        """Count what the message reports."""
        if message["type"] == "points" and LOSS in message["values"]:
            meters.level(catalogue.TRAINING_LOSS, float(message["values"][LOSS]))
        if "step" in message:
            self._reach(int(message["step"]))

    def _reach(self, step: int) -> None:
        now = self._clock()
        if self._step is not None and step > self._step:
            steps = step - self._step
            meters.add(catalogue.TRAINING_STEPS, steps)
            meters.observe(catalogue.TRAINING_STEP_SECONDS, (now - self._at) / steps)
        if self._step is None or step != self._step:
            self._step, self._at = step, now
