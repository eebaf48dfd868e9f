"""Memory that is kept between batches, and running out of it: how it looks, and the next try."""

from __future__ import annotations

import torch
from accelerate.utils.memory import clear_device_cache

MESSAGES = ("out of memory", "can't allocate memory", "not enough memory")
"""What CUDA, MPS and the CPU allocator say in a plain ``RuntimeError``."""

KEPT = 31 * 2**20
"""Bytes. The allocator of glibc looks no further than 32 MiB."""


def keep_freed() -> None:
    """Let the host's allocator keep what a batch frees for the next one.

    Memory that comes anew comes page by page, and each is a fault. Once glibc has freed a block
    that it had mapped, it takes blocks of up to that size from its heap, and gives the heap's end
    back only where twice as much is free (``M_MMAP_THRESHOLD`` in mallopt(3)). So a block comes
    and goes here, untouched. Where a threshold was set by hand nothing changes (decision 0021).
    """
    torch.empty(KEPT, dtype=torch.uint8)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error says that memory ran out, on the device or on the host."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(part in str(error) for part in MESSAGES)


def give_back() -> None:
    """Return what the device's allocator holds in reserve; call it outside the except block."""
    clear_device_cache(garbage_collection=True)
