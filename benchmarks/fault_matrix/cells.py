"""The cells of the matrix, those that make no sense, and what follows from those that do not hold.

Pure. A cell holds if the job ends as an undisturbed one does (``works`` has the conditions).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatch


class Work(StrEnum):
    """What the installation works on when the fault comes."""

    BULK = "bulk"
    FINETUNE = "fine-tune"


class Target(StrEnum):
    """What the fault hits, and when."""

    LEADER = "control leader"
    PLANNING = "planner while planning"
    FINALIZING = "planner while finalizing"
    WORKER = "worker"
    HOST_IDLE = "host agent, idle"
    HOST_FORMING = "host agent, forming"
    HOST_RUNNING = "host agent, running"
    HOST_UPLOADING = "host agent, uploading"
    HOST_DRAINING = "host agent, draining"
    VALKEY = "Valkey"
    POSTGRES = "Postgres"
    STORE = "object store"


class Fault(StrEnum):
    """What happens to it."""

    STOPPED = "stopped"
    KILLED = "killed"
    BLACK_HOLE = "black hole"
    SILENT = "silent successor"


FAULT_SECONDS = 15.0
"""How long a fault lasts; a kill lasts no time."""

SETTINGS: dict[str, float] = {
    "lease_seconds": 3,
    "redispatch_seconds": 3,
    "control_lease_seconds": 3,
    "dispatch_window": 8,
    "shard_rows": 250,
    "train_forming_seconds": 10,
    "train_grace_seconds": 20,
    "train_stall_seconds": 60,
}
"""Settings of the installation that are not the defaults: leases are shorter than a fault."""

FAULTS = {
    Fault.STOPPED: "SIGSTOP to every process of it, and SIGCONT after the fault",
    Fault.KILLED: "SIGKILL, and it is started again at once",
    Fault.BLACK_HOLE: "it runs, and every packet to and from it vanishes; no connection is closed",
    Fault.SILENT: "SIGKILL; at its address something takes connections and answers nothing, and "
    "the real one goes on after the fault. Of a process: it is started again and stopped at once",
}

TARGETS = {
    Target.LEADER: "one of two control processes, the one that leads; while the job runs",
    Target.PLANNING: "the only planner, while it writes a shard",
    Target.FINALIZING: "the only planner, while it writes the output",
    Target.WORKER: "the only worker, while it writes the part of a chunk",
    Target.HOST_IDLE: "of two hosts the one that gets the run; the job comes during the fault",
    Target.HOST_FORMING: "the host of the run, which has claimed its rank and fetches the data",
    Target.HOST_RUNNING: "the host of the run, while its program trains",
    Target.HOST_UPLOADING: "the host of the run, while it stores the second checkpoint",
    Target.HOST_DRAINING: "the host of the run, which was asked to end (SIGTERM)",
    Target.VALKEY: "the broker, while the job runs",
    Target.POSTGRES: "the ledger, while the job runs",
    Target.STORE: "SeaweedFS, while the job runs",
}

SERVERS = (Target.VALKEY, Target.POSTGRES, Target.STORE)
PLANNERS = (Target.PLANNING, Target.FINALIZING)
HOSTS = tuple(target for target in Target if target.name.startswith("HOST_"))

NO_SENSE: dict[tuple[Work, Target], str] = {
    **dict.fromkeys(((Work.BULK, target) for target in HOSTS), "no host takes part in a bulk job"),
    (Work.FINETUNE, Target.WORKER): "no worker of a pool takes part in a fine-tune",
    (Work.FINETUNE, Target.FINALIZING): "a fine-tune has no parts to put together: it ends with "
    "the commit of its run",
}
"""Why there are no such cells."""


@dataclass(frozen=True, order=True)
class Cell:
    """One fault at one target under one work."""

    work: Work
    target: Target
    fault: Fault

    @property
    def name(self) -> str:
        """Its key in the file of results."""
        return f"{self.work}/{self.target}/{self.fault}"

    @property
    def seconds(self) -> float:
        """How long the fault lasts."""
        return 0.0 if self.fault is Fault.KILLED else FAULT_SECONDS

    @property
    def kills(self) -> bool:
        """Whether a process dies by it."""
        return self.fault in {Fault.KILLED, Fault.SILENT}


CELLS = tuple(
    Cell(work, target, fault)
    for work, target, fault in itertools.product(Work, Target, Fault)
    if (work, target) not in NO_SENSE
)

CONSEQUENCES: dict[str, str] = {}
"""By the pattern of a cell's name: what follows from a cell that does not hold."""


def chosen(patterns: list[str]) -> list[Cell]:
    """The cells whose name matches one of the patterns; without patterns, all."""
    return [
        cell
        for cell in CELLS
        if not patterns or any(fnmatch(cell.name, pattern) for pattern in patterns)
    ]


def consequence(name: str) -> str | None:
    """What follows if the cell of this name does not hold; ``None``: no one has written it yet."""
    return next((text for pattern, text in CONSEQUENCES.items() if fnmatch(name, pattern)), None)
