"""The names of processes: different for any two, on whatever machines and in whatever containers.

Two containers may have the same host name, and their processes the same numbers. So each worker
draws a token at its start, which its pool processes inherit. ``jobs.worker_names`` writes the
names and reads them.
"""

from __future__ import annotations

import functools
import os
import platform
import secrets

from jobs import worker_names
from jobs.worker_names import ProcessName, WorkerName

TOKEN = "NIGHTSHIFT_WORKER_TOKEN"  # noqa: S105 - the name of a variable, and no password
"""The worker's token, for its pool processes."""

WORKER = "NIGHTSHIFT_WORKER"
"""The worker's name on record, for its pool processes."""


@functools.cache
def token() -> str:
    """The token of this process's worker; that of a process without one is its own."""
    return os.environ.get(TOKEN) or secrets.token_hex(6)


def begin() -> None:
    """Give the processes that this worker will start its token; an inherited one is not ours."""
    os.environ.pop(TOKEN, None)
    token.cache_clear()
    os.environ[TOKEN] = token()


def owner(pid: int) -> str:
    """The name in leases of a process of this worker: it begins with the worker's name on record.

    So a reader of the ledger finds the worker that holds a lease. A process of no worker has none.
    """
    worker = os.environ.get(WORKER, "")
    name = WorkerName.read(worker)
    ours = name is not None and name.token == token()
    return str(ProcessName(worker if ours else _of_no_worker(), pid))


def node(pool: str, *, device: str = "") -> str:
    """The name of this worker among Celery's, and on record: by its pool, device and machine."""
    name = WorkerName.of(
        pool=pool, device=device, pid=os.getpid(), token=token(), machine=platform.node()
    )
    return str(name)


def _of_no_worker() -> str:
    return f"{worker_names.machine_name(platform.node())}{worker_names.PROCESS}{token()}"
