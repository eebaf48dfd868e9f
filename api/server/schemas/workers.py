"""What the API answers about workers, and about messages that they refused."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Self

from pydantic import BaseModel

from jobs import tables
from jobs.lookups.predicates import QUARANTINE_DEATHS


class WorkerEngine(BaseModel):
    """A model that a worker has loaded; ``sharing``: how rows share a batch of it, in words."""

    model: str
    kind: str
    sharing: str


class Worker(BaseModel):
    """A worker on record; ``alive`` if it has beaten lately.

    ``engines``: none for a key without the scope ``operate``.
    """

    name: str
    object: Literal["worker"] = "worker"
    pool: str
    slots: int
    device: str
    started_at: datetime
    beat_at: datetime
    alive: bool
    engines: list[WorkerEngine]


class WorkerList(BaseModel):
    """Every worker of the installation, by pool and name."""

    object: Literal["list"] = "list"
    data: list[Worker]
    has_more: Literal[False] = False


class RefusedMessage(BaseModel):
    """A message of the broker that workers refused or died of; nothing that its sender wrote."""

    digest: str
    object: Literal["refused_message"] = "refused_message"
    queue: str
    reason: str  # a stable code
    message: str  # the same in words
    size: int  # bytes
    times: int  # it was refused
    deaths: int  # of workers that were acting on it
    quarantined: bool  # two workers died of it, and no other acts on it
    worker: str  # that met it last
    first_at: datetime
    last_at: datetime

    @classmethod
    def of(cls, found: tables.RefusedMessage) -> Self:
        """One as the ledger has it."""
        return cls(
            digest=found.digest,
            queue=found.queue,
            reason=found.reason,
            message=found.message,
            size=found.size,
            times=found.times,
            deaths=found.deaths,
            quarantined=found.deaths >= QUARANTINE_DEATHS,
            worker=found.worker,
            first_at=found.first_at,
            last_at=found.last_at,
        )


class RefusedMessageList(BaseModel):
    """The last hundred, the newest first."""

    object: Literal["list"] = "list"
    data: list[RefusedMessage]
    has_more: Literal[False] = False
