"""A cache, on this machine's disk, of the results of autotuning and probes.

Results have names, and all that depend on the same facts are in one file, named by a hash of these
facts; so a result from another processor, number of threads, PyTorch or model is never used. A file
that cannot be read or written costs another measurement and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import platform
import secrets
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self, TypeVar

import structlog
import torch
from transformers import PreTrainedModel

from jobs import distribution
from jobs.settings import Settings

T = TypeVar("T")
log = structlog.get_logger()

KERNEL_FLAGS = ("amx", "asimd", "avx", "f16c", "fma", "i8mm", "sse4", "sve", "vnni")
"""A processor's flags with these prefixes decide which kernels it can run."""


class TuningCache:
    """Results by name, for one set of ``facts``. Values and facts are plain JSON."""

    def __init__(self, folder: str, facts: dict[str, Any]) -> None:
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        self._file = Path(folder) / f"{digest[:32]}.json" if folder else None
        self._facts = facts

    @classmethod
    def of(
        cls,
        settings: Settings,
        *,
        model: PreTrainedModel,
        digest: str | None,
        variant: str,
        **more: Any,
    ) -> Self:
        """The cache of a model on its device that computes ``variant``; ``more`` are further facts.

        Without a digest it is shared by all models with the same facts. Without a folder in the
        settings nothing is cached.
        """
        facts = {
            "model": digest,
            "variant": variant,
            "dtype": str(model.dtype),
            "device": device_name(model.device),
            "threads": torch.get_num_threads() if model.device.type == "cpu" else 0,
            "torch": torch.__version__,
            "transformers": version("transformers"),
            "nightshift": distribution.version(),
        }
        return cls(settings.calibration_folder, facts | more)

    def get(self, name: str, parse: Callable[[Any], T]) -> T | None:
        """The result, parsed; ``None``: there is none, or ``parse`` raises for its value."""
        try:
            return parse(self._results()[name])
        except (ValueError, KeyError, TypeError):
            return None

    def keep(self, name: str, value: Any) -> None:
        """Write a result beside the others."""
        if self._file is None:
            return
        temporary = self._file.with_suffix(f".{secrets.token_hex(6)}")
        record = {**self._facts, "results": {**self._results(), name: value}}
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(record, indent=2) + "\n")
            temporary.replace(self._file)
        except OSError as error:
            log.warning("a result cannot be cached", name=name, error=str(error))

    def _results(self) -> dict[str, Any]:
        if self._file is None:
            return {}
        try:
            results = json.loads(self._file.read_bytes())["results"]
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return results if isinstance(results, dict) else {}


def device_name(device: torch.device) -> str:
    """The name of a device, shared by devices that run the same kernels equally fast."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type
    try:
        return processor(Path("/proc/cpuinfo").read_text())
    except OSError:  # only Linux has it
        return f"{platform.processor() or platform.machine()}, {_capability()}"


def processor(cpuinfo: str) -> str:
    """The first processor in /proc/cpuinfo: its name alone may stand for several generations."""
    lines = (line.partition(":") for line in cpuinfo.split("\n\n", maxsplit=1)[0].splitlines())
    fields = {name.strip(): value.strip() for name, _, value in lines}
    flags = fields.get("flags", fields.get("Features", "")).split()
    names = ("model name", "cpu family", "model", "CPU implementer", "CPU part", "CPU variant")
    words = [f"{name} {fields[name]}" for name in names if name in fields]
    words += [" ".join(sorted(flag for flag in flags if flag.startswith(KERNEL_FLAGS)))]
    return ", ".join([*words, _capability()])


def _capability() -> str:
    """The widest vector instructions that PyTorch uses here."""
    return f"PyTorch {torch.backends.cpu.get_cpu_capability()}"
