"""``stack.json``: what runs on a state folder, written by the supervisor, read by everybody else.

A process is known by its pid *and* its start time, so that a reused pid is never taken for it. Its
command line is recorded for people; it is not compared, since servers rename themselves.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from api.stack import private_files

IDENTITY = "NIGHTSHIFT_STACK"

CLOCK_SLACK = 1.0
"""Seconds by which the system's idea of a start time may move."""


@dataclass(frozen=True)
class Process:
    """One child as it was started."""

    name: str
    pid: int
    started: float
    """Seconds since 1970."""
    stop_signal: int
    command: tuple[str, ...]
    address: str
    log: str

    def find(self) -> psutil.Process | None:
        """The process, if it is still that one."""
        return alive(self.pid, started=self.started)


@dataclass(frozen=True)
class StackInfo:
    """A stack: where everybody reaches it. The URLs hold passwords; so the file is mode 0600."""

    home: Path
    pid: int
    """The supervisor's."""
    started: float
    api_url: str
    flower_url: str
    """User and password are in it."""
    database_url: str
    redis_url: str
    object_store_url: str
    key: str
    """The API key."""
    flower_password: str = ""
    identity: str = ""
    """Random, kept in the state folder; every process of the stack has it in its environment."""
    allowed: tuple[str, ...] = ()
    """Folders that the user allows as inputs and models."""
    folders: tuple[str, ...] = ()
    """Folders of the stack outside of its state folder."""
    metrics: dict[str, int] = field(default_factory=dict)
    """By service, the port on which it answers Prometheus; empty: none does."""
    ready: bool = False
    """Whether every service was ready once."""
    stop_seconds: float = 90.0
    """How long a clean end takes at most."""
    services: tuple[Process, ...] = ()

    def is_alive(self) -> bool:
        """Whether its supervisor runs."""
        return alive(self.pid, started=self.started) is not None


def read(home: Path) -> StackInfo | None:
    """What was written last, of a stack that runs or one that was killed; ``None``: nothing."""
    try:
        text = (home / "stack.json").read_text()
    except FileNotFoundError:
        return None
    fields: dict[str, Any] = json.loads(text)
    services = tuple(
        Process(**{**service, "command": tuple(service["command"])})
        for service in fields.pop("services")
    )
    if Path(fields["home"]) != home.resolve():  # of the folder that this one is a copy of
        return None
    lists = {name: tuple(fields.get(name, ())) for name in ("allowed", "folders")}
    return StackInfo(**{**fields, **lists, "home": home.resolve(), "services": services})


def write(info: StackInfo) -> None:
    """Replace the record."""
    fields = {**asdict(info), "home": str(info.home)}
    private_files.write(info.home / "stack.json", json.dumps(fields, indent=2) + "\n")


def remove(home: Path) -> None:
    """Say that nothing runs."""
    (home / "stack.json").unlink(missing_ok=True)


def alive(pid: int, *, started: float) -> psutil.Process | None:
    """The process with this pid and start time, unless it is gone or a zombie."""
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - started) < CLOCK_SLACK
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def end_leftovers(
    processes: Sequence[Process], *, identity: str, grace_seconds: float = 10.0
) -> list[int]:
    """End what a killed supervisor left behind; returns the pids.

    Each child leads its own session: members of a session whose leader is dead are found by it,
    and by the stack's identity in their environment, since numbers of processes are used again.
    """
    found = [(record, process) for record in processes if (process := record.find())]
    for record, process in reversed(found):
        process.send_signal(signal.Signals(record.stop_signal))
    ended, stubborn = psutil.wait_procs([p for _, p in found], timeout=grace_seconds)
    orphans = [orphan for record in processes for orphan in _session(record, identity)]
    for process in (*stubborn, *orphans):
        process.kill()
    psutil.wait_procs([*stubborn, *orphans], timeout=grace_seconds)
    return [process.pid for process in (*ended, *stubborn, *orphans)]


def _session(leader: Process, identity: str) -> list[psutil.Process]:
    members = []
    for process in psutil.process_iter():
        try:
            later = process.create_time() > leader.started - CLOCK_SLACK
            if later and os.getsid(process.pid) == leader.pid and _has(process, identity):
                members.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return members


def _has(process: psutil.Process, identity: str) -> bool:
    return bool(identity) and process.environ().get(IDENTITY) == identity
