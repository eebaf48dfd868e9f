"""What the API answers about pools: what their work wants, and what they have."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Self

from pydantic import BaseModel

from jobs.queries.demand import PoolDemand as Found


class PoolDemand(BaseModel):
    """Slots and hosts that a pool wants and has; numbers over all projects, for autoscalers."""

    pool: str
    object: Literal["pool.demand"] = "pool.demand"
    slots_wanted: int
    slots_for_deadlines: int  # of those, slots without which a deadline passes
    slots: int  # of workers that are heard
    slots_busy: int
    hosts_wanted: int
    hosts: int
    hosts_busy: int
    jobs: int  # bulk jobs that the slots are for
    chunks: int  # of those, not done; of each job 10,000 at most, of one that is not planned 1
    chunk_seconds: float  # of a chunk, on average over what is left
    drain_seconds: int  # within which work without a deadline should end
    at: datetime

    @classmethod
    def of(cls, found: Found, *, drain_seconds: int, at: datetime) -> Self:
        """The demand as the ledger gives it."""
        return cls(
            pool=found.pool,
            slots_wanted=found.slots.wanted,
            slots_for_deadlines=found.slots.for_deadlines,
            slots=found.slots_heard,
            slots_busy=found.slots_busy,
            hosts_wanted=found.hosts_wanted,
            hosts=found.hosts_heard,
            hosts_busy=found.hosts_busy,
            jobs=found.jobs,
            chunks=found.slots.chunks,
            chunk_seconds=found.slots.chunk_seconds,
            drain_seconds=drain_seconds,
            at=at,
        )


class PoolList(BaseModel):
    """Every pool that has workers, hosts or work, by name."""

    object: Literal["list"] = "list"
    data: list[PoolDemand]
    has_more: Literal[False] = False
