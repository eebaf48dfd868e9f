"""Heartbeats of workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from jobs.tables import Worker


def beat(session: Session, *, name: str, pool: str, slots: int, device: str) -> None:
    """Renew the worker's heartbeat."""
    values = {"pool": pool, "slots": slots, "device": device, "beat_at": sa.func.now()}
    session.execute(
        insert(Worker)
        .values(name=name, **values)
        .on_conflict_do_update(index_elements=[Worker.name], set_=values)
    )


def show_engines(
    session: Session, *, name: str, slot: int, engines: Sequence[Mapping[str, str]]
) -> None:
    """Record what a worker's process has loaded now, for people; one not on record has none."""
    session.execute(
        sa.update(Worker)
        .where(Worker.name == name)
        .values(engines=Worker.engines.concat({str(slot): list(engines)}))
    )


def leave(session: Session, *, name: str) -> None:
    """Remove the worker from the record."""
    session.execute(sa.delete(Worker).where(Worker.name == name))


def forget_silent(session: Session, *, seconds: float) -> int:
    """Remove workers that have been silent for ``seconds``; returns how many."""
    gone = session.scalars(
        sa.delete(Worker)
        .where(Worker.beat_at < sa.func.now() - sa.func.make_interval(0, 0, 0, 0, 0, 0, seconds))
        .returning(Worker.name)
    ).all()
    return len(gone)
