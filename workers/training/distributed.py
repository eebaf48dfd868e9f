"""What the ranks of a run agree on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed
from accelerate import Accelerator

from jobs.progress import Beat

AGREE_SECONDS = 1.0
"""About so often the ranks ask each other whether to stop or to save."""

MOST_STEPS = 50
POLL_SECONDS = 0.2

PATIENCE = timedelta(hours=6)
"""How long a rank waits in a collective call. Whoever started the ranks finds out sooner."""


@dataclass(frozen=True)
class Wish:
    """What some rank wants after a step."""

    stop: bool
    save: bool


class Agreement:
    """Asks every rank at the same steps, and tells all the same.

    How many steps lie between is set by the slowest rank's time for a step, which is part of what
    they tell each other.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self._wait = 1
        self._since = 0
        self._asked_at = time.monotonic()

    def after_step(self, *, stop: bool, save: bool) -> Wish:
        """What is to be done after this step; every rank asks after every step."""
        if self._accelerator.num_processes == 1:
            return Wish(stop=stop, save=save)
        self._since += 1
        if self._since < self._wait:
            return Wish(stop=False, save=False)
        pace = (time.monotonic() - self._asked_at) / self._since
        stop_, save_, pace = self._most(float(stop), float(save), pace)
        self._wait = max(1, min(MOST_STEPS, int(AGREE_SECONDS / max(pace, 1e-6))))
        self._since, self._asked_at = 0, time.monotonic()
        return Wish(stop=stop_ > 0, save=save_ > 0)

    def _most(self, *values: float) -> list[float]:
        """Of each value the largest of all ranks."""
        mine = torch.tensor([values], dtype=torch.float32, device=self._accelerator.device)
        gathered: torch.Tensor = self._accelerator.gather(mine)
        found: list[float] = gathered.amax(dim=0).tolist()
        return found


def wait(accelerator: Accelerator, *, alive: Beat) -> None:
    """Until every rank is here; a sign of life meanwhile, for it is the others who take long."""
    if accelerator.num_processes == 1:
        return
    if accelerator.device.type != "cpu":
        accelerator.wait_for_everyone()
        return
    arrived = torch.distributed.barrier(async_op=True)
    while arrived is not None and not arrived.is_completed():
        alive()
        time.sleep(POLL_SECONDS / 10)
    if arrived is not None:
        arrived.wait()


def once_per_host(
    accelerator: Accelerator,
    work: Callable[[], None],
    *,
    made: Callable[[], bool],
    alive: Beat,
) -> None:
    """Let one process of each host do what is not done; all go on when all hosts have it."""
    if accelerator.is_local_main_process and not made():
        work()
    while not made():
        alive()
        time.sleep(POLL_SECONDS)
    wait(accelerator, alive=alive)
