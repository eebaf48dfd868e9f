"""Who is there: control, planners, workers of each pool, and how busy they are."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.lookups import predicates
from jobs.states import ChunkState
from jobs.tables import Chunk, ControlStatus, Job, Worker

PLANNERS = "plan"
"""The pool name under which planners beat."""


@dataclass(frozen=True)
class Surroundings:
    """The installation at one moment."""

    control_turned_at: datetime | None
    broker_error: str | None
    slots: dict[str, int]  # by pool, of workers that beat lately
    busy: dict[str, int]  # by pool, chunks leased


_SLOTS = (
    sa.select(Worker.pool, sa.cast(sa.func.sum(Worker.slots), sa.Integer))
    .where(Worker.beat_at > sa.func.now() - predicates.SILENCE)
    .group_by(Worker.pool)
)
_BUSY = (
    sa.select(Job.pool, sa.func.count())
    .join(Chunk, Chunk.job_id == Job.id)
    .where(Chunk.state == ChunkState.LEASED)
    .group_by(Job.pool)
)


def look(session: Session) -> Surroundings:
    """Read it all, in three small queries."""
    status = session.get(ControlStatus, 1)
    return Surroundings(
        control_turned_at=status.turned_at if status else None,
        broker_error=status.broker_error if status else None,
        slots=slots_by_pool(session),
        busy=dict(session.execute(_BUSY).all()),
    )


def slots_by_pool(session: Session) -> dict[str, int]:
    """How many chunks each pool can work on at a time, by workers that beat lately."""
    return dict(session.execute(_SLOTS).all())


def workers(session: Session) -> list[Worker]:
    """Every worker on record, by pool and name."""
    return list(session.scalars(sa.select(Worker).order_by(Worker.pool, Worker.name)))
