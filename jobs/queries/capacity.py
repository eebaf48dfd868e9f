"""Who is there: control, planners and the workers of each pool."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.orm import Session

from jobs.decisions.waiting_reason import LastHeard
from jobs.lookups import predicates
from jobs.tables import ControlStatus, Worker

PLANNERS = "plan"
"""The pool name under which planners beat."""


@dataclass(frozen=True)
class PoolWorkers:
    """The workers of one pool."""

    slots: int  # of those that are heard
    last_heard: LastHeard  # however long ago
    overdue: dict[str, datetime]  # those that have missed heartbeats: name -> last heartbeat


@dataclass(frozen=True)
class Surroundings:
    """The installation at one moment."""

    control_turned_at: datetime | None
    broker_error: str | None
    pools: dict[str, PoolWorkers]  # only those with a worker on record

    def slots(self, pool: str) -> int:
        """Of the pool's workers that are heard."""
        return self.pools[pool].slots if pool in self.pools else 0


_IS_OVERDUE = Worker.beat_at <= sa.func.now() - predicates.OVERDUE
_SLOTS = (
    sa.select(Worker.pool, sa.cast(sa.func.sum(Worker.slots), sa.Integer))
    .where(Worker.beat_at > sa.func.now() - predicates.SILENCE)
    .group_by(Worker.pool)
)
_WORKERS = sa.select(
    Worker.pool,
    sa.cast(sa.func.coalesce(sa.func.sum(Worker.slots).filter(~_IS_OVERDUE), 0), sa.Integer),
    sa.func.array_agg(aggregate_order_by(Worker.name, Worker.beat_at.desc()))[1],
    sa.func.max(Worker.beat_at),
    sa.func.array_agg(Worker.name).filter(_IS_OVERDUE),
    sa.func.array_agg(Worker.beat_at).filter(_IS_OVERDUE),
).group_by(Worker.pool)


def look(session: Session) -> Surroundings:
    """Read it all, in two small queries."""
    status = session.get(ControlStatus, 1)
    return Surroundings(
        control_turned_at=status.turned_at if status else None,
        broker_error=status.broker_error if status else None,
        pools={
            pool: PoolWorkers(
                slots=slots,
                last_heard=LastHeard(last, heard_at),
                overdue=dict(zip(names or (), beats or (), strict=True)),
            )
            for pool, slots, last, heard_at, names, beats in session.execute(_WORKERS)
        },
    )


def slots_by_pool(session: Session) -> dict[str, int]:
    """How many chunks each pool can work on at a time, by workers that beat lately."""
    return dict(session.execute(_SLOTS).all())


def workers(session: Session) -> list[Worker]:
    """Every worker on record, by pool and name."""
    return list(session.scalars(sa.select(Worker).order_by(Worker.pool, Worker.name)))
