"""Limits on what the files of a model make a worker do, in a process that can be ended.

A timer of the kernel ends the process, also while native code holds the interpreter's lock and no
thread runs. What the process was doing is in a small file, so that its parent can distinguish a
model that does not load from a row that kills. Keeps promise P12. Without ``enable`` only
``interrupted`` limits anything.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any

from jobs import temporary
from jobs.decisions.crash_policy import Phase
from jobs.errors import ControlFlow
from workers import process_names

LOAD_SECONDS = 120.0
"""For any model, beside its size."""

LOAD_BYTES_PER_SECOND = 20 * 2**20
"""As slow as a disk may be."""

TRY_SECONDS = 5.0
"""CPU time of the first text through a tokenizer or a template. It is a few hundred characters."""

TRY_BYTES = 4 * 2**30
"""Memory that this may take: a rule that multiplies a text ends there."""

ROW_SECONDS = 3.0
"""CPU time of one row through a chat template."""

READ_SECONDS = 60.0
"""Of some rows through a tokenizer: a megabyte takes less than one."""


class Stop(StrEnum):
    """How a message of Celery's names the signals of our timers."""

    WALL = "SIGALRM"
    CPU = "SIGPROF"


class TimeLimit(ControlFlow):
    """Python code, such as a template's, took too long."""


_enabled = False


def enable() -> None:
    """Let this process be ended by timers. Call it in a pool process, before its first chunk."""
    global _enabled  # noqa: PLW0603 - a property of the process
    for name in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(name, signal.SIG_DFL)
    _enabled = True


@contextmanager
def loading(folder: Path) -> Iterator[None]:
    """Bound what is done in this block, in time that depends on the size of the weights."""
    if not _enabled:
        yield
        return
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    with _noted(Phase.LOAD), _timer(LOAD_SECONDS + size / LOAD_BYTES_PER_SECOND):
        yield


@contextmanager
def trying(phase: Phase) -> Iterator[None]:
    """Bound the CPU time and memory of a first text, while a model is loaded."""
    if not _enabled:
        yield
        return
    with _noted(phase), _timer(TRY_SECONDS, kind=signal.ITIMER_PROF), _memory():
        yield


@contextmanager
def reading() -> Iterator[None]:
    """Bound the time of rows through a tokenizer."""
    if not _enabled:
        yield
        return
    with _timer(READ_SECONDS):
        yield


@contextmanager
def interrupted(seconds: float | None = None) -> Iterator[None]:
    """Raise ``TimeLimit`` in Python code that takes more CPU time; only in the main thread.

    The default is ``ROW_SECONDS``.
    """
    most = ROW_SECONDS if seconds is None else seconds
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: Any) -> None:
        raise TimeLimit(f"more than {most:g} seconds of CPU time")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, most)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def last_phase(pid: int) -> Phase | None:
    """What a process that has died was doing, if a model was being loaded; read once."""
    path = _path(pid)
    try:
        found = Phase(path.read_text())
    except (OSError, ValueError):
        return None
    path.unlink(missing_ok=True)
    return found


@contextmanager
def _noted(phase: Phase) -> Iterator[None]:
    path = _path(os.getpid())
    outer = path.read_text() if path.is_file() else None
    (temporary.folder() / "phases").mkdir(mode=0o700, exist_ok=True)
    path.write_text(phase)
    try:
        yield
    finally:
        if outer is None:
            path.unlink(missing_ok=True)
        else:
            path.write_text(outer)


@contextmanager
def _timer(seconds: float, *, kind: int = signal.ITIMER_REAL) -> Iterator[None]:
    before, _ = signal.setitimer(kind, seconds)
    try:
        yield
    finally:
        signal.setitimer(kind, before)


@contextmanager
def _memory() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with contextlib.suppress(OSError, ValueError):  # not everywhere, and not below what is used
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + TRY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _path(pid: int) -> Path:
    return temporary.path() / "phases" / f"{process_names.token()}-{pid}"
