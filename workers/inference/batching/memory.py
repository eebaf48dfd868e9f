"""Memory between batches: what the host's allocator keeps, and whether it ran out."""

from __future__ import annotations

import resource
from pathlib import Path

import torch
from accelerate.utils.memory import clear_device_cache

from jobs.decisions.faults import OUT_OF_MEMORY
from workers import devices

STATM = Path("/proc/self/statm")

FREED_KEPT_BYTES = 31 * 2**20
"""Bytes. The upper limit of glibc's dynamic threshold is 32 MiB."""


def keep_freed() -> None:
    """Let the host's allocator keep what a batch frees for the next one.

    New memory comes page by page, and each page is a fault. Once glibc has freed a block that it
    had mapped, it takes blocks of up to that size from its heap, and returns the end of the heap
    only where twice as much is free (``M_MMAP_THRESHOLD`` in mallopt(3)). So this allocates a block
    and frees it, untouched. Where a threshold was set by hand nothing changes (decision 0021).
    """
    torch.empty(FREED_KEPT_BYTES, dtype=torch.uint8)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error means that memory ran out, on the device or on the host."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(part in str(error) for part in OUT_OF_MEMORY)


def empty_cache() -> None:
    """Release the device allocator's unused memory; call it outside the except block."""
    clear_device_cache(garbage_collection=True)


def in_use() -> dict[str, int]:
    """Bytes that this process has on each of its devices, by name; on the CPU its resident ones."""
    if torch.cuda.is_available():
        names = devices.here() or map(str, range(torch.cuda.device_count()))
        places = range(torch.cuda.device_count())
        return {
            f"cuda:{name}": torch.cuda.memory_reserved(place)
            for place, name in zip(places, names, strict=False)
        }
    try:
        resident = int(STATM.read_text().split()[1])
    except OSError:  # not Linux
        return {}
    return {"cpu": resident * resource.getpagesize()}
