"""How a training process ends: with its parent, on request, or as finished."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

from jobs import parent_death
from jobs.errors import ControlFlow

DONE = 0
CRASHED = 1
FAULT = 65
"""Exit status: the job itself is at fault, as a message says (EX_DATAERR)."""
STOPPED = 75
"""Exit status: stopped on request after a checkpoint (EX_TEMPFAIL)."""

LAUNCHED = "NIGHTSHIFT_LAUNCHED"
"""Set where the process was started by a launcher: then a parent of 1 means that it is dead."""


class TrainingStopped(ControlFlow):
    """A stop was requested and everything worth saving is saved: the process ends."""


def die_with_parent() -> None:
    """Let this process be killed when its parent dies; Linux only."""
    parent_death.kill_with_parent(orphan_has_parent_one=LAUNCHED in os.environ)


def leave(status: int) -> NoReturn:
    """Flush the output and end the process at once, without tearing anything down.

    A distributed model may hang otherwise: the reducer of torch's DDP, freed last, holds the GIL
    while it waits for gloo's threads, and one of these may be waiting for the GIL to free a tensor
    (pytorch issue 56297; issue 190489 describes the same at the interpreter's end).
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(
            Exception
        ):  # the disk may be full, which must not keep the process
            stream.flush()
    os._exit(status)


@contextlib.contextmanager
def leaving() -> Iterator[None]:
    """Print any exception of the block and end the process with ``CRASHED``."""
    try:
        yield
    except BaseException:  # noqa: BLE001 - as the interpreter does
        with contextlib.suppress(Exception):
            sys.excepthook(*sys.exc_info())
        leave(CRASHED)


class StopRequest:
    """A request to stop: the file ``stop`` exists, or SIGTERM has arrived."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._signalled = False
        signal.signal(signal.SIGTERM, self._on_signal)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._signalled = True

    @property
    def requested(self) -> bool:
        """Whether the process should save a checkpoint and end."""
        return self._signalled or self._file.exists()
