"""What this machine found best for a model, or true of it, kept for the next process.

Verdicts have names and lie side by side in a file of all that they depend on, so that one which was
found with another processor, number of threads, PyTorch or model is never taken. A file that cannot
be read or written costs finding out anew, and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self, TypeVar

import structlog
import torch
from transformers import PreTrainedModel

from jobs.settings import Settings

T = TypeVar("T")
log = structlog.get_logger()

KERNELS = ("amx", "asimd", "avx", "f16c", "fma", "i8mm", "sse4", "sve", "vnni")
"""Flags of a processor that begin so decide which kernels it can run."""


class TuningCache:
    """Verdicts by their names, as long as all ``facts`` are the same. Values are plain JSON."""

    def __init__(self, folder: str, facts: dict[str, Any]) -> None:
        name = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        self._file = Path(folder) / f"{name[:32]}.json" if folder else None
        self._facts = facts

    @classmethod
    def of(
        cls,
        settings: Settings,
        *,
        model: PreTrainedModel,
        digest: str | None,
        kind: str,
        **more: Any,
    ) -> Self:
        """For a model on its device, computing what ``kind`` says; ``more`` facts are plain JSON.

        Without a digest: for all models of the same facts.

        Without a folder in the settings nothing is remembered.
        """
        facts = {
            "model": digest,
            "kind": kind,
            "dtype": str(model.dtype),
            "device": device_name(model.device),
            "threads": torch.get_num_threads() if model.device.type == "cpu" else 0,
            "torch": torch.__version__,
            "transformers": version("transformers"),
            "nightshift": version("nightshift"),
        }
        return cls(settings.calibration_folder, facts | more)

    def get(self, name: str, read: Callable[[Any], T]) -> T | None:
        """The verdict as ``read`` makes it of its value; ``None``: there is none, or not that."""
        try:
            return read(self._verdicts()[name])
        except (ValueError, KeyError, TypeError):
            return None

    def keep(self, name: str, value: Any) -> None:
        """Remember a verdict beside the others."""
        if self._file is None:
            return
        fresh = self._file.with_suffix(f".{os.getpid()}")
        record = {**self._facts, "verdicts": {**self._verdicts(), name: value}}
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            fresh.write_text(json.dumps(record, indent=2) + "\n")
            fresh.replace(self._file)
        except OSError as error:
            log.warning("a verdict cannot be remembered", name=name, error=str(error))

    def _verdicts(self) -> dict[str, Any]:
        if self._file is None:
            return {}
        try:
            found = json.loads(self._file.read_bytes())["verdicts"]
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return found if isinstance(found, dict) else {}


def device_name(device: torch.device) -> str:
    """What a device is called, and others that run the same kernels as fast."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type
    try:
        return processor(Path("/proc/cpuinfo").read_text())
    except OSError:  # only Linux has it
        return f"{platform.processor() or platform.machine()}, {_capability()}"


def processor(cpuinfo: str) -> str:
    """The first processor of /proc/cpuinfo: a name alone may stand for several generations."""
    lines = (line.partition(":") for line in cpuinfo.split("\n\n", maxsplit=1)[0].splitlines())
    found = {name.strip(): value.strip() for name, _, value in lines}
    flags = found.get("flags", found.get("Features", "")).split()
    names = ("model name", "cpu family", "model", "CPU implementer", "CPU part", "CPU variant")
    words = [f"{name} {found[name]}" for name in names if name in found]
    words += [" ".join(sorted(flag for flag in flags if flag.startswith(KERNELS)))]
    return ", ".join([*words, _capability()])


def _capability() -> str:
    """The widest vectors that PyTorch computes with here."""
    return f"PyTorch {torch.backends.cpu.get_cpu_capability()}"
