"""Running out of memory: how it looks, and how to be ready for the next try."""

from __future__ import annotations

import torch
from accelerate.utils.memory import clear_device_cache

MESSAGES = ("out of memory", "can't allocate memory", "not enough memory")
"""What CUDA, MPS and the CPU allocator say in a plain ``RuntimeError``."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error says that memory ran out, on the device or on the host."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(part in str(error) for part in MESSAGES)


def give_back() -> None:
    """Return what the device's allocator holds in reserve; call it outside the except block."""
    clear_device_cache(garbage_collection=True)
