"""``TrainState``, which is exactly what a checkpoint holds (promise P7).

A checkpoint is a folder. Rank 0 writes the trained weights, optimizer, scheduler, scaler and
counters; every rank writes the states of its random generators. The folder is written under a
temporary name, synced to disk and renamed, so that a folder with its final name is complete on its
host. Where Accelerate shards the model (FSDP, DeepSpeed), weights and optimizer are in its own
format, in files of every rank.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import nn

from jobs.errors import ControlFlow
from workers.training import forward_faults

SHARDING = (DistributedType.FSDP, DistributedType.DEEPSPEED)
COUNTERS = "state.json"
WEIGHTS = "weights.pt"
OPTIMIZER = "optimizer.pt"
SHARDED = "sharded"

CHECKPOINTS_KEPT = 2
"""Checkpoints that stay on this disk, besides the best; one may still be uploading."""


class CheckpointUnusable(ControlFlow):
    """The checkpoint lacks something without which resuming would not be exact."""


@dataclass
class Counters:
    """The position of the training and its best evaluation."""

    step: int = 0  # optimizer steps done
    epoch: int = 0  # the epoch of the next step, from 0
    place: int = 0  # the next step's index within its epoch, from 0
    best: float | None = None  # the best value of the metric; null: none yet
    best_step: int | None = None
    evaluations_without_better: int = 0
    ended_early: bool = False  # patience ran out: no more steps
    evaluation_due: bool = False  # a stop came in the evaluation that belongs to this step

    def advance(self, *, epoch_steps: int) -> None:
        """Count one step."""
        self.step += 1
        self.place += 1
        if self.place == epoch_steps:
            self.epoch, self.place = self.epoch + 1, 0


@dataclass
class MetricWindow:
    """Sums of this rank since the last point of its metrics."""

    loss: torch.Tensor  # on the device: reading it would wait for the device
    steps: int = 0


@dataclass
class TrainState:
    """Everything that a resumed run needs to continue as if it had not been interrupted."""

    accelerator: Accelerator
    model: nn.Module
    optimizer: Any
    scheduler: Any
    window: MetricWindow
    counters: Counters = field(default_factory=Counters)

    @staticmethod
    def begin(
        accelerator: Accelerator, *, model: nn.Module, optimizer: Any, scheduler: Any
    ) -> TrainState:
        """The state before the first step."""
        window = MetricWindow(torch.zeros((), device=accelerator.device))
        return TrainState(accelerator, model, optimizer, scheduler, window)

    def save(self, folder: Path) -> None:
        """Write this host's part of a checkpoint; a collective call."""
        draft = folder.with_name(f"{folder.name}.tmp")
        draft.mkdir(parents=True, exist_ok=True)
        if self.sharded:
            self.accelerator.save_state(str(draft / SHARDED))
        if self.accelerator.is_main_process:
            self._save_shared(draft)
        _write_torch(draft / _rank_file(self.accelerator.process_index), self._rank_state())
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_local_main_process:
            _commit(draft, folder)
        self.accelerator.wait_for_everyone()

    def load(self, folder: Path) -> bool:
        """Resume from a checkpoint; ``False``: with another world size, so that bits may differ.

        Raises ``CheckpointUnusable``.
        """
        try:
            return self._load(folder)
        except CheckpointUnusable:
            raise
        except Exception as error:
            if forward_faults.is_transient(error):
                raise
            reason = forward_faults.first_line(error)
            raise CheckpointUnusable(f"{folder.name} cannot be loaded: {reason}") from error

    def _load(self, folder: Path) -> bool:
        saved = _read_counters(folder)
        ranks = self.accelerator.num_processes
        rank_states = [_load_rank(folder, rank) for rank in range(saved["ranks"])]
        if self.sharded:
            self.accelerator.load_state(str(folder / SHARDED))
        else:
            self.load_weights(folder)
            self._load_optimizer(_read_torch(folder / OPTIMIZER))
        self.counters = Counters(**saved["counters"])
        if saved["ranks"] == ranks:
            self._restore(rank_states[self.accelerator.process_index])
            return True
        self._restore_resized(rank_states)
        return False

    def load_weights(self, folder: Path) -> None:
        """Load the weights of a checkpoint and nothing else."""
        if self.sharded:
            self.accelerator.load_state(str(folder / SHARDED))
            return
        weights = _read_torch(folder / WEIGHTS)
        missing, unexpected = self.module.load_state_dict(weights, strict=False)
        if unexpected or not set(_trained(self.module)).isdisjoint(missing):
            raise CheckpointUnusable(f"{folder.name}: its weights are of another model")

    @property
    def module(self) -> nn.Module:
        """The model itself, without Accelerate's wrappers."""
        return cast("nn.Module", self.accelerator.unwrap_model(self.model))

    @property
    def sharded(self) -> bool:
        """Whether each rank holds only a shard of the model."""
        return self.accelerator.distributed_type in SHARDING

    def _save_shared(self, draft: Path) -> None:
        if not self.sharded:
            _write_torch(draft / WEIGHTS, _trained(self.module))
            _write_torch(draft / OPTIMIZER, self._optimizer_state())
        ranks = self.accelerator.num_processes
        text = json.dumps({"ranks": ranks, "counters": asdict(self.counters)}, indent=2)
        _write(draft / COUNTERS, lambda path: path.write_text(text))

    def _optimizer_state(self) -> dict[str, Any]:
        scaler = self.accelerator.scaler
        return {
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
        }

    def _load_optimizer(self, saved: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scheduler.load_state_dict(saved["scheduler"])
        if self.accelerator.scaler is not None and saved["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(saved["scaler"])

    def _rank_state(self) -> dict[str, Any]:
        window = {"loss": self.window.loss.cpu(), "steps": self.window.steps}
        return {"generators": _generators(), "window": window}

    def _restore(self, saved: dict[str, Any]) -> None:
        loss = saved["window"]["loss"].to(self.window.loss.device)
        self.window = MetricWindow(loss=loss, steps=saved["window"]["steps"])
        _set_generators(saved["generators"])

    def _restore_resized(self, rank_states: list[dict[str, Any]]) -> None:
        """With another world size each rank takes the generators of one of the saved ranks."""
        rank = self.accelerator.process_index
        self._restore(rank_states[rank % len(rank_states)])
        if rank >= len(rank_states):
            torch.manual_seed(torch.initial_seed() + rank)
        total = torch.stack([saved["window"]["loss"] for saved in rank_states]).sum()
        share = total if rank == 0 else torch.zeros_like(total)
        self.window = replace(self.window, loss=share.to(self.window.loss.device))


def step_of(folder: Path) -> int | None:
    """The step of a checkpoint; ``None``: the folder holds none."""
    if not (folder / COUNTERS).is_file():
        return None
    return int(_read_counters(folder)["counters"]["step"])


def delete_later(checkpoints: Path, *, step: int) -> None:
    """Delete checkpoints after the step, so that ``delete_old`` takes none of them for the newest.

    An agent gives each run an empty work folder: they can be there only if the program is started
    by hand in a folder that was used before.
    """
    for folder in checkpoints.glob("step-?????????"):
        if int(folder.name.removeprefix("step-")) > step:
            shutil.rmtree(folder, ignore_errors=True)


def delete_old(checkpoints: Path, *, best_step: int | None) -> None:
    """Delete all checkpoints but the newest ``CHECKPOINTS_KEPT`` and the best."""
    folders = sorted(checkpoints.glob("step-?????????"))
    best = f"step-{-1 if best_step is None else best_step:09}"
    for folder in (each for each in folders[:-CHECKPOINTS_KEPT] if each.name != best):
        # Renamed first: an agent that links the files takes all of them or none.
        shutil.rmtree(folder.rename(folder.with_name(f"{folder.name}.tmp")), ignore_errors=True)


def _trained(module: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors that training changes; frozen tensors are in the base model."""
    frozen = {name for name, each in module.named_parameters() if not each.requires_grad}
    return {name: each for name, each in module.state_dict().items() if name not in frozen}


def _read_counters(folder: Path) -> dict[str, Any]:
    return cast("dict[str, Any]", json.loads((folder / COUNTERS).read_bytes()))


def _rank_file(rank: int) -> str:
    return f"rank-{rank:05}.pt"


def _load_rank(folder: Path, rank: int) -> dict[str, Any]:
    path = folder / _rank_file(rank)
    if not path.is_file():
        raise CheckpointUnusable(
            f"{folder.name} lacks {path.name}, the random generators of rank {rank}"
        )
    return _read_torch(path)


def _generators() -> dict[str, Any]:
    kind, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002 - libraries draw from it
    version, words, gauss = random.getstate()
    states: dict[str, Any] = {
        "python": [version, list(words), gauss],
        "numpy": [kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _set_generators(saved: dict[str, Any]) -> None:
    version, words, gauss = saved["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, *rest = saved["numpy"]
    state = (kind, keys.numpy().astype(np.uint32), *rest)
    np.random.set_state(state)  # noqa: NPY002
    torch.set_rng_state(saved["torch"])
    if "cuda" in saved and torch.cuda.is_available():
        torch.cuda.set_rng_state(saved["cuda"])


def _read_torch(path: Path) -> dict[str, Any]:
    """Load tensors and plain values only, so that nothing in the file is executed (P10)."""
    return cast("dict[str, Any]", torch.load(path, map_location="cpu", weights_only=True))


def _write_torch(path: Path, value: object) -> None:
    _write(path, lambda target: torch.save(value, target))


def _write(path: Path, write: Callable[[Path], object]) -> None:
    write(path)
    _sync(path)


def _commit(draft: Path, folder: Path) -> None:
    """Give the draft its final name, in place of an earlier run's folder of that name."""
    for inner in draft.rglob("*"):
        _sync(inner)
    _sync(draft)
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)
    _sync(folder.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
