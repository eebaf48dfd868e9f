"""Hosts that train, as their agents last beat."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.lookups import clock, predicates
from jobs.tables import Host, Job, Run


@dataclass(frozen=True)
class HostView:
    """A host, whether it is alive, and the run that has reserved it."""

    host: Host
    alive: bool
    job_id: str | None  # null: it is idle, or works for another project
    run_number: int | None  # null if and only if `job_id` is


def listing(session: Session, *, project_id: str) -> list[HostView]:
    """Every host on record, by pool and name."""
    query = (
        sa.select(Host, Job.id, Run.number)
        .outerjoin(Run, Run.id == Host.run_id)
        .outerjoin(Job, sa.and_(Job.id == Run.job_id, Job.project_id == project_id))
        .order_by(Host.pool, Host.name)
    )
    now = clock.now(session)
    return [_view(host, job_id, number, now=now) for host, job_id, number in session.execute(query)]


def get(session: Session, name: str) -> Host | None:
    """One host; ``None``: it is not on record."""
    return session.get(Host, name)


def _view(host: Host, job_id: str | None, number: int | None, *, now: datetime) -> HostView:
    return HostView(
        host=host,
        alive=host.beat_at > now - predicates.SILENCE,
        job_id=job_id,
        run_number=None if job_id is None else number,
    )
