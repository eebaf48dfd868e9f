"""The state of a training, which is exactly what a checkpoint holds.

A checkpoint is a folder. Rank 0 writes the weights that are trained, optimizer, schedule, scaler
and counters; every rank writes its generators. It is written under a temporary name, synced to disk
and renamed: a folder with its final name is whole on its host. Where Accelerate shards the model
(FSDP, DeepSpeed), its own format holds weights and optimizer, in files of every rank.
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

SHARDING = (DistributedType.FSDP, DistributedType.DEEPSPEED)
COUNTERS = "state.json"
WEIGHTS = "weights.pt"
OPTIMIZER = "optimizer.pt"
SHARDED = "sharded"


class CheckpointUnusable(ControlFlow):
    """The checkpoint lacks something without which going on would not be exact."""


@dataclass
class Counters:
    """Where the training is."""

    step: int = 0  # optimizer steps done
    epoch: int = 0  # the epoch of the next step, from 0
    place: int = 0  # the next step's number within its epoch, from 0
    best: float | None = None  # the best-so-far rule's metric; null: none yet
    best_step: int | None = None
    evaluations_without_better: int = 0
    ended_early: bool = False  # patience ran out: no more steps

    def advance(self, *, epoch_steps: int) -> None:
        """One more step is done."""
        self.step += 1
        self.place += 1
        if self.place == epoch_steps:
            self.epoch, self.place = self.epoch + 1, 0


@dataclass
class Window:
    """What this rank has summed up since the curve's last point."""

    loss: torch.Tensor  # on the device: reading it would wait for the device
    steps: int = 0


@dataclass
class TrainState:
    """All that a resumed run needs to go on as if nothing had happened."""

    accelerator: Accelerator
    model: nn.Module
    optimizer: Any
    scheduler: Any
    window: Window
    counters: Counters = field(default_factory=Counters)

    def save(self, folder: Path) -> None:
        """Write this host's part of a checkpoint; every rank calls it."""
        draft = folder.with_name(f"{folder.name}.tmp")
        draft.mkdir(parents=True, exist_ok=True)
        if self.sharded:
            self.accelerator.save_state(str(draft / SHARDED))
        if self.accelerator.is_main_process:
            self._save_whole(draft)
        _write_torch(draft / _rank_file(self.accelerator.process_index), self._of_rank())
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_local_main_process:
            _commit(draft, folder)
        self.accelerator.wait_for_everyone()

    def load(self, folder: Path) -> bool:
        """Go on from a checkpoint; ``False``: with another number of ranks, so bits may differ.

        Raises ``CheckpointUnusable``.
        """
        saved = _read_counters(folder)
        ranks = self.accelerator.num_processes
        of_ranks = [_load_rank(folder, rank) for rank in range(saved["ranks"])]
        if self.sharded:
            self.accelerator.load_state(str(folder / SHARDED))
        else:
            self.load_weights(folder)
            self._load_optimizer(_read_torch(folder / OPTIMIZER))
        self.counters = Counters(**saved["counters"])
        if saved["ranks"] == ranks:
            self._restore(of_ranks[self.accelerator.process_index])
            return True
        self._restore_elsewhere(of_ranks)
        return False

    def load_weights(self, folder: Path) -> None:
        """Take a checkpoint's weights and leave the rest."""
        if self.sharded:
            self.accelerator.load_state(str(folder / SHARDED))
            return
        weights = _read_torch(folder / WEIGHTS)
        lacking, unknown = self.module.load_state_dict(weights, strict=False)
        wanted = set(_trained(self.module))
        if unknown or not wanted.isdisjoint(lacking):
            raise CheckpointUnusable(f"{folder}: its weights are of another model")

    @property
    def module(self) -> nn.Module:
        """The model itself, without what wraps it for several ranks."""
        return cast("nn.Module", self.accelerator.unwrap_model(self.model))

    @property
    def sharded(self) -> bool:
        """Whether each rank holds a part of the model only."""
        return self.accelerator.distributed_type in SHARDING

    def _save_whole(self, draft: Path) -> None:
        if not self.sharded:
            _write_torch(draft / WEIGHTS, _trained(self.module))
            _write_torch(draft / OPTIMIZER, self._of_optimizer())
        ranks = self.accelerator.num_processes
        text = json.dumps({"ranks": ranks, "counters": asdict(self.counters)}, indent=2)
        _write(draft / COUNTERS, lambda path: path.write_text(text))

    def _of_optimizer(self) -> dict[str, Any]:
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

    def _of_rank(self) -> dict[str, Any]:
        window = {"loss": self.window.loss.cpu(), "steps": self.window.steps}
        return {"generators": _generators(), "window": window}

    def _restore(self, saved: dict[str, Any]) -> None:
        loss = saved["window"]["loss"].to(self.window.loss.device)
        self.window = Window(loss=loss, steps=saved["window"]["steps"])
        _set_generators(saved["generators"])

    def _restore_elsewhere(self, of_ranks: list[dict[str, Any]]) -> None:
        """With another number of ranks: each goes on with generators of some rank of before."""
        rank = self.accelerator.process_index
        self._restore(of_ranks[rank % len(of_ranks)])
        if rank >= len(of_ranks):
            torch.manual_seed(torch.initial_seed() + rank)
        total = torch.stack([saved["window"]["loss"] for saved in of_ranks]).sum()
        share = total if rank == 0 else torch.zeros_like(total)
        self.window = replace(self.window, loss=share.to(self.window.loss.device))


def step_of(folder: Path) -> int | None:
    """The step of a checkpoint; ``None``: there is none in this folder."""
    if not (folder / COUNTERS).is_file():
        return None
    return int(_read_counters(folder)["counters"]["step"])


def _trained(module: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors that training changes; the frozen ones of a base are in the base."""
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
            f"{folder} lacks {path.name}, the random generators of rank {rank}"
        )
    return _read_torch(path)


def _generators() -> dict[str, Any]:
    kind, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002 - libraries draw from it
    version, words, gauss = random.getstate()
    found: dict[str, Any] = {
        "python": [version, list(words), gauss],
        "numpy": [kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        found["cuda"] = torch.cuda.get_rng_state()
    return found


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
    """Tensors and plain values only: nothing in the file is executed."""
    return cast("dict[str, Any]", torch.load(path, map_location="cpu", weights_only=True))


def _write_torch(path: Path, value: object) -> None:
    _write(path, lambda target: torch.save(value, target))


def _write(path: Path, write: Callable[[Path], object]) -> None:
    write(path)
    _sync(path)


def _commit(draft: Path, folder: Path) -> None:
    """Give the draft its name; what a run before this one wrote under it makes way."""
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
