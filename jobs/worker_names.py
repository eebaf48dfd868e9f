"""The names of workers, and of their processes in leases: written and read here alone; pure.

A worker is named by its pool, devices, process, token and machine: ``gpu.cuda0_1-4711-5f0c@node7``.
The devices are left out where they are called as the pool (``cpu-4711-5f0c@node7``), and the names
of earlier versions have none, so that both are read alike. A process of a worker adds its number:
``gpu.cuda0_1-4711-5f0c@node7:4712``. In a name there is one ``@``, and in that of a process one
``:`` behind each part, whatever its pool and its machine are called.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

PROCESS = ":"
"""Divides a worker and the number of its process; ``jobs.lookups.holders`` divides them in SQL."""

UNKNOWN = "unknown"
"""Stands where a machine or a pool has no name."""

LONGEST_DEVICES = 32
"""Characters for the numbers of devices; of more devices their count is shown."""

_NAME = re.compile(
    r"(?P<pool>[\w-]+)(?:\.(?P<devices>[\w-]+))?-(?P<pid>\d+)-(?P<token>[0-9A-Za-z]+)"
    r"@(?P<machine>[^\s:@]+)",
    re.ASCII,
)
_IN_A_PLACE = re.compile(r"[^\w-]+", re.ASCII)
_IN_A_DEVICE = re.compile(r"[^\w,:-]+", re.ASCII)
_BETWEEN_DEVICES = re.compile("[,:]+")
_IN_A_MACHINE = re.compile(r"[^\w.-]+", re.ASCII)


@dataclass(frozen=True)
class WorkerName:
    """The name of a worker among Celery's, and on record."""

    pool: str
    devices: str  # ``cuda0_1``; empty: called as the pool, none, or of an earlier version
    pid: int
    token: str
    machine: str

    @classmethod
    def of(cls, *, pool: str, device: str, pid: int, token: str, machine: str) -> Self:
        """Of a worker with this ``device`` on record, such as ``cuda:0,1``; empty: it has none."""
        place = _IN_A_PLACE.sub("_", pool) or UNKNOWN
        devices = _devices(device)
        return cls(
            pool=place,
            devices="" if devices == place else devices,
            pid=pid,
            token=token,
            machine=machine_name(machine),
        )

    @classmethod
    def read(cls, text: str) -> Self | None:
        """Read a name of this or of an earlier version; ``None``: it is no worker's name."""
        found = _NAME.fullmatch(text)
        if found is None:
            return None
        return cls(
            pool=found["pool"],
            devices=found["devices"] or "",
            pid=int(found["pid"]),
            token=found["token"],
            machine=found["machine"],
        )

    def __str__(self) -> str:
        place = f"{self.pool}.{self.devices}" if self.devices else self.pool
        return f"{place}-{self.pid}-{self.token}@{self.machine}"


@dataclass(frozen=True)
class ProcessName:
    """The owner of a lease: a process, and the worker that it belongs to."""

    worker: str  # the worker's name on record; of a process of no worker, its machine and token
    pid: int

    @classmethod
    def read(cls, text: str) -> Self:
        """Read the owner of a lease. Raises ``ValueError`` for a text without a process."""
        worker, divider, pid = text.rpartition(PROCESS)
        if not divider or not pid.isdecimal():
            raise ValueError(f"{text!r} names no process")
        return cls(worker, int(pid))

    def __str__(self) -> str:
        return f"{self.worker}{PROCESS}{self.pid}"


def holder(owner: str) -> str:
    """The worker on record whose process has this name; see ``jobs.lookups.holders``."""
    return owner.partition(PROCESS)[0]


def machine_name(name: str) -> str:
    """The name of a machine without what divides the parts of a worker's name."""
    return _IN_A_MACHINE.sub("_", name) or UNKNOWN


def _devices(device: str) -> str:
    """``cuda0_1`` for ``cuda:0,1``; ``8xcuda`` where the ids of eight are too long."""
    kind, *ids = _BETWEEN_DEVICES.split(_IN_A_DEVICE.sub("_", device))
    numbers = [each[: len("GPU-01234567")] for each in ids if each]
    shown = kind + "_".join(numbers)
    short = f"{len(numbers)}x{kind}" if numbers else kind
    return shown if len(shown) <= LONGEST_DEVICES else short[:LONGEST_DEVICES]
