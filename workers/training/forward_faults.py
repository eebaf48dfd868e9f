"""Classification of exceptions in a forward pass: permanent ones become a ``ModelFailure``.

A ``ModelFailure`` ends the job after one run. Faults of memory, disks, devices and peers are
transient; they are raised unchanged, and control decides (``jobs.decisions.run_verdict``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed

from jobs.errors import ModelFailure, NightshiftError
from workers.inference.batching.memory import is_out_of_memory

MODEL_RAISES = "model_raises"

TRANSIENT = (OSError, MemoryError, torch.distributed.DistError, torch.AcceleratorError)
"""Exceptions of machines and networks."""

_MACHINE = re.compile(
    r"cuda|cublas|cudnn|nccl|gloo|connection|peer|timed? ?out|memory", re.IGNORECASE
)
"""Words in a ``RuntimeError`` that point to the machine."""


def is_transient(error: Exception) -> bool:
    """Whether another try may succeed."""
    if isinstance(error, TRANSIENT) or is_out_of_memory(error):
        return True
    return isinstance(error, RuntimeError) and _MACHINE.search(str(error)) is not None


@contextmanager
def of_model() -> Iterator[None]:
    """Raise ``ModelFailure`` if the block, a forward pass, raises a permanent fault."""
    try:
        yield
    except NightshiftError:
        raise
    except Exception as error:
        if is_transient(error):
            raise
        raise ModelFailure(
            f"the model raises for these rows, and would at every try: {first_line(error)}",
            code=MODEL_RAISES,
        ) from error


def first_line(error: BaseException) -> str:
    """The exception's type and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
