"""Exceptions that would come again at every try: of the model and its rows, not of the machine.

What is told as a fault ends the job after one run. Memory, disks, devices and peers may be better
the next time, and are left as they are: control judges them (``jobs.decisions.run_verdict``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed

from jobs.errors import ModelFailure, NightshiftError
from workers.inference.batching.memory import is_out_of_memory

RAISES = "model_raises"

PASSING = (OSError, MemoryError, torch.distributed.DistError, torch.AcceleratorError)
"""Of machines and networks."""

_MACHINE = re.compile(
    r"cuda|cublas|cudnn|nccl|gloo|connection|peer|timed? ?out|memory", re.IGNORECASE
)
"""Words of a ``RuntimeError`` that may come from a machine too."""


def is_passing(error: Exception) -> bool:
    """Whether the next try may go well."""
    if isinstance(error, PASSING) or is_out_of_memory(error):
        return True
    return isinstance(error, RuntimeError) and _MACHINE.search(str(error)) is not None


@contextmanager
def of_model() -> Iterator[None]:
    """Raise ``ModelFailure`` for what the block, a forward pass, raises and would raise again."""
    try:
        yield
    except NightshiftError:
        raise
    except Exception as error:
        if is_passing(error):
            raise
        raise ModelFailure(
            f"the model raises for these rows, and would at every try: {words(error)}", code=RAISES
        ) from error


def words(error: BaseException) -> str:
    """The exception's type and the first line of what it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
