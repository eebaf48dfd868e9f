"""Facts about the parts of an installation, which ``jobs.doctor.judgement`` judges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path


@dataclass(frozen=True)
class PostgresFacts:
    """A Postgres that answers."""

    version: str  # as it names itself
    major: int
    read_only: bool  # a standby
    skew_seconds: float  # its clock less this machine's
    connections: int
    most_connections: int
    revision: str | None  # of the schema; None: the database is empty
    revisions: Sequence[str]  # that this code knows, the newest first


@dataclass(frozen=True)
class RedisFacts:
    """A Redis or Valkey that answers."""

    name: str  # with its version
    version: tuple[int, ...]
    replica: bool
    memory: int
    most_memory: int  # 0: no limit
    policy: str  # what it does at that limit
    keeps: bool | None  # it writes what it holds to disk; None: unknown
    save_failed: bool  # its last snapshot


@dataclass(frozen=True)
class FolderFacts:
    """A folder of this machine."""

    purpose: str
    path: Path
    problem: str | None  # why it cannot be written; None: it can
    mode: int | None  # None: it is not there yet
    free: int
    total: int
    private: bool = False  # it must be closed to other accounts


@dataclass(frozen=True)
class PoolFacts:
    """The workers, planners or hosts of one pool."""

    name: str
    alive: int
    slots: int
    devices: Sequence[str]  # of those that are alive
    last_heard: datetime


@dataclass(frozen=True)
class CrewFacts:
    """Who is there, by the ledger."""

    now: datetime
    control_turned_at: datetime | None
    broker_error: str | None
    planners: int
    pools: Sequence[PoolFacts]
    hosts: Sequence[PoolFacts]
    accelerator_here: bool  # this machine has one


@dataclass(frozen=True)
class ApiFacts:
    """An API that answers."""

    url: str
    version: str
    own_version: str
    ready: bool
    key_valid: bool | None  # None: there is no key to try
    skew_seconds: float | None  # None: it sent no time
