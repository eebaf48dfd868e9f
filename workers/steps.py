"""Holding a job's step, planning or finalizing, while a block of work runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from jobs import database
from jobs.errors import LeaseLost
from jobs.ledger import steps
from jobs.ledger.steps import Step, StepLease
from workers.context import Context
from workers.keeper import Keeper

PATIENCE = 20.0
"""Seconds that a claim or release waits for Postgres to come back."""

SURROUNDINGS = (OSError, LeaseLost, *database.MAY_PASS)
"""Faults that are not the job's and pass: storage, network, Postgres, another owner."""


@dataclass(frozen=True)
class Held:
    """A step's lease and the thread that keeps it."""

    lease: StepLease
    keeper: Keeper


@contextmanager
def holding(job_id: str, *, step: Step, context: Context) -> Iterator[Held | None]:
    """The step's lease, kept and at the end given back; ``None`` if it is not to be had."""
    length = context.settings.lease
    lease = database.patiently(
        context.sessions,
        lambda s: steps.claim(s, job_id, step=step, owner=context.owner, lease=length),
        seconds=PATIENCE,
    )
    if lease is None:
        yield None
        return

    def renew() -> str | None:
        with context.sessions.begin() as session:
            ours = steps.renew(session, lease, lease=length)
        return None if ours else "the step was taken over, or the job has moved on"

    stall = timedelta(seconds=context.settings.stall_seconds)
    error, crashed = None, False
    try:
        with Keeper(renew, lease=length, stall=stall) as keeper:
            yield Held(lease, keeper)
    except Exception as fault:
        error = f"{type(fault).__name__}: {fault}"
        crashed = not isinstance(fault, SURROUNDINGS)
        raise
    finally:
        database.patiently(
            context.sessions,
            lambda session: steps.release(session, lease, error=error, crashed=crashed),
            seconds=PATIENCE,
        )
