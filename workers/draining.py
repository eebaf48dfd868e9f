"""Draining: what a worker's processes hold when the worker is asked to end.

The parent leaves a file, for which its processes look at each heartbeat. The chunk or step that a
process works on may end for ``FINISH_SECONDS``; then it is released, no failure is counted, and
another worker takes it. A rank of a training run is no part of this: it saves a checkpoint
(docs/gangs.md).
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from jobs import temporary

FINISH_SECONDS = 15.0
"""How long a chunk or step that is under way may still take; a chunk takes seconds."""

FILE = "NIGHTSHIFT_DRAINING_FILE"
"""Environment variable with the file's path, for the processes of a worker."""


def prepare() -> None:
    """Choose the file; the parent calls this before it starts its processes."""
    path = temporary.folder() / f"draining-{os.getpid()}"
    path.unlink(missing_ok=True)  # an earlier process of this number was killed
    os.environ[FILE] = str(path)


def begin() -> None:
    """Let the processes of this worker release, after a while, what they hold."""
    if path := os.environ.get(FILE):
        Path(path).write_text(f"{time.monotonic()}")  # one clock for all processes of a machine


def end() -> None:
    """Remove the file: every process has ended."""
    if path := os.environ.get(FILE):
        Path(path).unlink(missing_ok=True)


def overdue() -> str | None:
    """Why the work at hand should be released now; ``None``: it may go on."""
    path = os.environ.get(FILE)
    if path is None:
        return None
    try:
        began_at = float(Path(path).read_text())
    except (FileNotFoundError, ValueError):  # not there, or being written
        return None
    if time.monotonic() - began_at < FINISH_SECONDS:
        return None
    return "this worker was asked to end"
