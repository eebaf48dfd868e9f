"""An embedded stack of its own for one benchmark, on a fresh state folder."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from api.client import Client
from api.stack import up
from api.stack.record import StackInfo


@contextmanager
def fresh() -> Iterator[StackInfo]:
    """``nightshift up`` on a new folder; stopped and removed at the end."""
    home = Path(tempfile.mkdtemp(prefix="nightshift-bench-"))
    home.chmod(0o711)  # Postgres runs as another user when we are root
    try:
        yield up.background(home)
    finally:
        up.stop(home)
        shutil.rmtree(home)


def client(stack: StackInfo) -> Client:
    """A client of the stack."""
    return Client(stack.api_url, stack.key)


def peak_bytes(stack: StackInfo, service: str) -> int:
    """Peak resident memory of a service, the sum over its processes (VmHWM)."""
    pid = next(each.pid for each in stack.services if each.name == service)
    process = psutil.Process(pid)
    return sum(peak_of(each.pid) for each in (process, *process.children(recursive=True)))


def peak_of(pid: int) -> int:
    """Peak resident memory of one process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
