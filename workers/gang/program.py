"""A program of one rank as a child process of its agent: start it, read its messages, kill it.

The program runs in its own session and dies with the agent: the kernel kills the launcher when the
agent dies, and the program asks for the same. Its messages come through files
(``workers.training.messages``), because a launcher passes no pipes on.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import structlog

from jobs import environment, parent_death

log = structlog.get_logger()

INCARNATION = "NIGHTSHIFT_PROGRAM_INCARNATION"
HOST = "NIGHTSHIFT_PROGRAM_HOST"
INSTALLATION = "NIGHTSHIFT_PROGRAM_INSTALLATION"
"""Environment variables by which an agent finds the programs of its predecessors."""

TAIL_LINES = 80
"""Lines of log kept for an error message; a launcher alone writes forty when a process fails."""
READ_BYTES = 2**20

Message = dict[str, Any]


class Program:
    """One running program, its log and its messages."""

    def __init__(
        self, command: Sequence[str], *, variables: Mapping[str, str], folder: Path, log: Path
    ) -> None:
        messages = folder / "told"
        messages.mkdir(exist_ok=True)
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._log = _LineReader(log, position=log.stat().st_size if log.exists() else 0)
        self._message_folder = messages
        self._files = {  # messages of an earlier program in this folder have been read
            path: _LineReader(path, position=path.stat().st_size)
            for path in messages.glob("*.jsonl")
        }
        with log.open("ab") as sink:
            self._process = subprocess.Popen(
                command,
                env=inherited() | dict(variables),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=parent_death.in_child(),  # noqa: PLW1509 - one system call
            )

    @property
    def pid(self) -> int:
        """The process id of the launcher, which leads its session."""
        return self._process.pid

    def ended(self) -> int | None:
        """The launcher's exit code, negative for a signal; ``None`` while it runs."""
        return self._process.poll()

    def log_lines(self) -> list[str]:
        """Complete lines written since the last call; after the program's end, all the rest."""
        lines = list(self._log.new(ended=self.ended() is not None))
        self.tail.extend(lines)
        return lines

    def messages(self) -> list[Message]:
        """Messages written since the last call, in order within each process."""
        ended = self.ended() is not None
        for path in sorted(self._message_folder.glob("*.jsonl")):
            self._files.setdefault(path, _LineReader(path))
        return [
            message for lines in self._files.values() for message in _parsed(lines.new(ended=ended))
        ]

    def kill(self) -> None:
        """Send SIGKILL to the launcher, its session and all descendants; wait for their end."""
        descendants = _descendants(self.pid)
        for process in descendants:
            _kill(process)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        psutil.wait_procs(descendants, timeout=10)


def inherited() -> dict[str, str]:
    """What a program gets of its agent's environment: no URL, key or token is among it."""
    groups = (environment.SYSTEM, environment.PYTHON, environment.COMPUTE)
    return environment.chosen(os.environ, *groups)


def end_leftovers(*, installation: str, host: str, incarnation: str) -> int:
    """Kill the programs that earlier agents of this host left behind; returns their number.

    A host of another installation may have the same name: its programs are left alone.
    """
    ours = {INSTALLATION: installation, HOST: host}
    leftovers = [
        process
        for process in psutil.process_iter()
        if _is_of_earlier(process, ours, incarnation=incarnation)
    ]
    for process in leftovers:
        _kill(process)
    psutil.wait_procs(leftovers, timeout=10)
    return len(leftovers)


class _LineReader:
    """Reads a growing file line by line."""

    def __init__(self, path: Path, *, position: int = 0) -> None:
        self._path = path
        self._position = position
        self._rest = b""

    def new(self, *, ended: bool) -> Iterator[str]:
        """Lines completed since the last call, from at most one block of the file.

        Once the writer has ended: all blocks, and a last line without a newline.
        """
        while block := self._block():
            *whole, self._rest = (self._rest + block).split(b"\n")
            if len(self._rest) > READ_BYTES:  # an endless line is cut
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
                block = file.read(READ_BYTES)
        except FileNotFoundError:
            return b""
        self._position += len(block)
        return block


def _text(line: bytes) -> str:
    """The last state of a line that a progress bar has overwritten, as a terminal shows it."""
    return line.decode("utf-8", "replace").rstrip("\r").rpartition("\r")[2]


def _parsed(lines: Iterator[str]) -> Iterator[Message]:
    for line in lines:
        try:
            message = json.loads(line)
        except ValueError:
            log.warning("a program wrote a message that is not JSON", line=line[:200])
            continue
        if isinstance(message, dict) and "type" in message:
            yield message


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


def _is_of_earlier(process: psutil.Process, ours: Mapping[str, str], *, incarnation: str) -> bool:
    try:
        variables = process.environ()
    except (psutil.Error, OSError):
        return False
    is_ours = all(variables.get(name) == value for name, value in ours.items())
    return is_ours and variables.get(INCARNATION, incarnation) != incarnation
