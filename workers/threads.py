"""How many CPU threads a process computes with; set before PyTorch is imported.

A number that ``torch.set_num_threads`` sets later reaches MKL in another way, which then may not
choose fewer for small products: attention with two threads takes up to 1.4 times as long (decision
0020).
"""

from __future__ import annotations

import os

from jobs.settings import Settings

OPENMP = "OMP_NUM_THREADS"


def share(settings: Settings) -> int:
    """The settings' number, or a pool process's even share of the cores."""
    return settings.worker_threads or max(1, cores() // settings.worker_processes)


def take(settings: Settings) -> None:
    """Let this process compute with its share. That must be before torch is there."""
    os.environ[OPENMP] = str(share(settings))


def cores() -> int:
    """The cores this process may use, which a container can make fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
