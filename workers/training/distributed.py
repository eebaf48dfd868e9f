"""Ranks: how they start, wait for each other, and decide together to stop or save."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed
from accelerate import Accelerator
from accelerate.utils import (
    DataLoaderConfiguration,
    DistributedDataParallelKwargs,
    InitProcessGroupKwargs,
)

from jobs.errors import JobFailure
from jobs.progress import Beat
from workers.training import launch
from workers.training.run_config import RunConfig

CONSENSUS_SECONDS = 1.0
"""About how often the ranks exchange whether to stop or to save."""

MAX_STEPS = 50
"""Steps between two exchanges at most."""

POLL_SECONDS = 0.2

COLLECTIVE_TIMEOUT = timedelta(hours=6)
"""Timeout of a collective call. The agent detects a stall long before."""


def start_accelerator(run: RunConfig) -> Accelerator:
    """Devices and ranks as the launcher set them. One scheduler step is one optimizer step."""
    launch.use_interface()
    on_cpu = not torch.accelerator.is_available()
    if on_cpu and run.spec.train.mixed_precision == "fp16":
        raise JobFailure(
            "mixed_precision fp16 needs an accelerator, and this host has none: take bf16 or no",
            code="fp16_needs_accelerator",
        )
    accelerator = Accelerator(
        cpu=on_cpu,
        mixed_precision=run.spec.train.mixed_precision,
        log_with="tensorboard",
        project_dir=run.folder,
        dataloader_config=DataLoaderConfiguration(split_batches=True),
        kwargs_handlers=[
            InitProcessGroupKwargs(timeout=COLLECTIVE_TIMEOUT),
            # A model may have weights that its task leaves unused, such as a pooler.
            DistributedDataParallelKwargs(find_unused_parameters=True, broadcast_buffers=False),
        ],
    )
    if accelerator.num_processes != int(os.environ.get("WORLD_SIZE", "1")):
        raise RuntimeError("the launcher started several ranks, and they do not see each other")
    launch.complete_plugins(accelerator, max_grad_norm=run.spec.train.max_grad_norm)
    accelerator.init_trackers("tensorboard")
    return accelerator


@dataclass(frozen=True)
class StepDecision:
    """Whether any rank asks to stop or to save after this step."""

    stop: bool
    save: bool


class RankConsensus:
    """Exchanges the ranks' requests at the same steps, so that all of them decide alike.

    The number of steps between two exchanges follows from the slowest rank's time for a step, which
    is part of the exchange.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self._interval = 1  # steps
        self._steps = 0  # since the last exchange
        self._exchanged_at = time.monotonic()

    def after_step(self, *, stop: bool, save: bool) -> StepDecision:
        """The decision after this step; every rank calls it after every step."""
        if self._accelerator.num_processes == 1:
            return StepDecision(stop=stop, save=save)
        self._steps += 1
        if self._steps < self._interval:
            return StepDecision(stop=False, save=False)
        step_seconds = (time.monotonic() - self._exchanged_at) / self._steps
        stops, saves, slowest = self._maxima(float(stop), float(save), step_seconds)
        interval = int(CONSENSUS_SECONDS / max(slowest, 1e-6))
        self._interval = max(1, min(MAX_STEPS, interval))
        self._steps, self._exchanged_at = 0, time.monotonic()
        return StepDecision(stop=stops > 0, save=saves > 0)

    def _maxima(self, *values: float) -> list[float]:
        """The maximum of each value over all ranks."""
        mine = torch.tensor([values], dtype=torch.float32, device=self._accelerator.device)
        gathered: torch.Tensor = self._accelerator.gather(mine)
        maxima: list[float] = gathered.amax(dim=0).tolist()
        return maxima


def barrier(accelerator: Accelerator, *, beat: Beat) -> None:
    """Wait until every rank is here, with heartbeats meanwhile: the others may take long."""
    if accelerator.num_processes == 1:
        return
    if accelerator.device.type != "cpu":
        accelerator.wait_for_everyone()
        return
    arrived = torch.distributed.barrier(async_op=True)
    while arrived is not None and not arrived.is_completed():
        beat()
        time.sleep(POLL_SECONDS / 10)
    if arrived is not None:
        arrived.wait()


def once_per_host(
    accelerator: Accelerator,
    work: Callable[[], None],
    *,
    done: Callable[[], bool],
    beat: Beat,
) -> None:
    """Let one process of each host work unless it is done; return when it is done on all hosts."""
    if accelerator.is_local_main_process and not done():
        work()
    while not done():
        beat()
        time.sleep(POLL_SECONDS)
    barrier(accelerator, beat=beat)
