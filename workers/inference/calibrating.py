"""How many tokens of a model go through a device best together: found by trying, and remembered.

What is tried is real work. Until it is known, batches of several sizes take turns, longest rows
first, so that sizes are compared on rows of nearly one length; answers do not depend on it (promise
P6). What was found is kept in a file of the machine, by what it depends on; but for the rows, of
which it is taken that those to come are like the first.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog
import torch
from transformers import PreTrainedModel

from jobs.settings import Settings

log = structlog.get_logger()

SIZES = {"cpu": (512, 1_024, 2_048, 4_096)}
ACCELERATOR_SIZES = (8_192, 16_384, 32_768, 65_536)

ROUNDS = 4
"""Batches of each size that are measured; the first, which warms up, is not counted."""

FULL = 0.75
"""A batch with less than this share of its size says nothing of it: there were no more rows."""

NEAR = 0.97
"""The smallest size within this share of the fastest is taken: it needs less memory."""

PATIENCE = 16
"""So many batches of each size are tried at most. Rows may be too few to fill the largest."""


class Trial:
    """Sizes that take turns until the best is known; ``keep`` is then told."""

    def __init__(self, sizes: Sequence[int], *, keep: Callable[[int], None]) -> None:
        self._rates: dict[int, list[float]] = {size: [] for size in sizes}
        self._turns = dict.fromkeys(sizes, 0)
        self._keep = keep

    @property
    def largest(self) -> int:
        """Of the sizes that are tried."""
        return max(self._rates)

    def next(self) -> int:
        """The size whose turn it is."""
        size = min(self._turns, key=lambda each: self._turns[each])
        self._turns[size] += 1
        return size

    def note(self, size: int, *, tokens: int, seconds: float) -> None:
        """A batch of this size had so many tokens and took so long."""
        if tokens >= FULL * size:
            self._rates[size].append(tokens / max(seconds, 1e-9))

    @property
    def over(self) -> bool:
        """Whether all is known, or will not be."""
        known = all(len(rates) >= ROUNDS for rates in self._rates.values())
        return known or max(self._turns.values()) > PATIENCE

    def best(self) -> int | None:
        """The best of the sizes that are known; it is kept if all are. ``None``: none is."""
        speeds = {
            size: statistics.median(rates[1:])
            for size, rates in self._rates.items()
            if len(rates) >= ROUNDS
        }
        if not speeds:
            return None
        fastest = max(speeds.values())
        size = min(size for size, speed in speeds.items() if speed >= NEAR * fastest)
        log.info("batch size calibrated", tokens=size, tokens_per_second=speeds)
        if len(speeds) == len(self._rates):
            self._keep(size)
        return size


def trial(settings: Settings, *, model: PreTrainedModel, digest: str, kind: str) -> Trial | int:
    """The best size for a model where it is known, by the settings or from before; else a trial.

    ``kind`` tells apart what else is computed differently.
    """
    if settings.batch_tokens:
        return settings.batch_tokens
    facts = {
        "model": digest,
        "kind": kind,
        "dtype": str(model.dtype),
        "device": _name(model.device),
        "threads": torch.get_num_threads() if model.device.type == "cpu" else 0,
        "torch": torch.__version__,
    }
    memory = _Memory(settings.calibration_folder, facts)
    known = memory.tokens()
    sizes = SIZES.get(model.device.type, ACCELERATOR_SIZES)
    return Trial(sizes, keep=memory.keep) if known is None else known


class _Memory:
    """A file of a few numbers. One that cannot be read or written is tried for anew."""

    def __init__(self, folder: str, facts: dict[str, object]) -> None:
        name = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        self._file = Path(folder) / f"{name[:32]}.json" if folder else None
        self._facts = facts

    def tokens(self) -> int | None:
        if self._file is None:
            return None
        try:
            found = json.loads(self._file.read_bytes())["tokens"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return found if isinstance(found, int) and found > 0 else None

    def keep(self, tokens: int) -> None:
        if self._file is None:
            return
        fresh = self._file.with_suffix(f".{os.getpid()}")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            fresh.write_text(json.dumps({**self._facts, "tokens": tokens}, indent=2) + "\n")
            fresh.replace(self._file)
        except OSError as error:
            log.warning("the batch size cannot be remembered", error=str(error))


def _name(device: torch.device) -> str:
    """What a device is called that others of its make are called as well."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # only Linux has it
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
