"""The training program of one rank as its agent sees it: start it, listen to it, end it.

The program runs in a session of its own and dies with the agent: the kernel kills the launcher when
the agent dies, and the program asks the same for itself. What it tells comes through files, since a
launcher passes no pipes on.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import structlog

log = structlog.get_logger()

INCARNATION = "NIGHTSHIFT_HOST_INCARNATION"
HOST = "NIGHTSHIFT_HOST_NAME"
"""Variables by which an agent knows the programs of its predecessors."""

TAIL_LINES = 80
"""A launcher alone takes forty to say that its processes have failed."""
READ = 2**20
_PR_SET_PDEATHSIG = 1

Told = dict[str, Any]


class Program:
    """One running program, its log and what it tells."""

    def __init__(
        self, command: Sequence[str], *, environment: Mapping[str, str], folder: Path, log: Path
    ) -> None:
        told = folder / "told"
        told.mkdir(exist_ok=True)
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._log = _Lines(log, position=log.stat().st_size if log.exists() else 0)
        self._told = told
        self._files = {  # what an earlier program told in this folder was heard then
            path: _Lines(path, position=path.stat().st_size) for path in told.glob("*.jsonl")
        }
        with log.open("ab") as sink:
            self._process = subprocess.Popen(
                command,
                env={**os.environ, **environment},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_last_will(),  # noqa: PLW1509 - one system call
            )

    @property
    def pid(self) -> int:
        """The launcher's, and its session's."""
        return self._process.pid

    def ended(self) -> int | None:
        """The launcher's exit code, negative for a signal; ``None`` while it runs."""
        return self._process.poll()

    def log_lines(self) -> list[str]:
        """Whole lines written since the last call; once it has ended, all that is left."""
        lines = list(self._log.new(ended=self.ended() is not None))
        self.tail.extend(lines)
        return lines

    def told(self) -> list[Told]:
        """What all its processes told since the last call, in order of each."""
        ended = self.ended() is not None
        for path in sorted(self._told.glob("*.jsonl")):
            self._files.setdefault(path, _Lines(path))
        return [fact for lines in self._files.values() for fact in _facts(lines.new(ended=ended))]

    def kill(self) -> None:
        """SIGKILL to the launcher, its session and all that descends from it; wait for the end."""
        doomed = _descendants(self.pid)
        for process in doomed:
            _kill(process)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        psutil.wait_procs(doomed, timeout=10)


def end_leftovers(*, host: str, incarnation: str) -> int:
    """Kill programs that an earlier agent of this host left behind; their number."""
    found = [
        process for process in psutil.process_iter() if _is_of_another(process, host, incarnation)
    ]
    for process in found:
        _kill(process)
    psutil.wait_procs(found, timeout=10)
    return len(found)


class _Lines:
    """A growing file, line by line."""

    def __init__(self, path: Path, *, position: int = 0) -> None:
        self._path = path
        self._position = position
        self._rest = b""

    def new(self, *, ended: bool) -> Iterator[str]:
        """Lines that have become whole since the last call, so much at a time.

        Everything, with a last line that has no end, once its writer has ended.
        """
        while block := self._block():
            *whole, self._rest = (self._rest + block).split(b"\n")
            if len(self._rest) > READ:  # a line without end is cut
                whole, self._rest = [*whole, self._rest], b""
            yield from map(_text, whole)
            if not ended:
                return
        if ended and self._rest:
            rest, self._rest = self._rest, b""
            yield _text(rest)

    def _block(self) -> bytes:
        try:
            with self._path.open("rb") as file:
                file.seek(self._position)
                block = file.read(READ)
        except FileNotFoundError:
            return b""
        self._position += len(block)
        return block


def _text(line: bytes) -> str:
    """What a terminal would show of a line that a progress bar wrote over and over."""
    return line.decode("utf-8", "replace").rstrip("\r").rpartition("\r")[2]


def _facts(lines: Iterator[str]) -> Iterator[Told]:
    for line in lines:
        try:
            fact = json.loads(line)
        except ValueError:
            log.warning("a program told something that is not JSON", line=line[:200])
            continue
        if isinstance(fact, dict) and "type" in fact:
            yield fact


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return


def _is_of_another(process: psutil.Process, host: str, incarnation: str) -> bool:
    try:
        environment = process.environ()
    except (psutil.Error, OSError):
        return False
    return (
        environment.get(HOST) == host and environment.get(INCARNATION, incarnation) != incarnation
    )


def _last_will() -> Callable[[], None] | None:
    """Ask the kernel for SIGKILL when the agent's thread dies; only the main thread lives long."""
    if sys.platform != "linux" or threading.current_thread() is not threading.main_thread():
        return None
    libc, parent = ctypes.CDLL(None), os.getpid()

    def last_will() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return last_will
