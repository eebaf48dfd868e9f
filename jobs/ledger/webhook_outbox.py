"""The outbox: events for webhooks, written in the transaction that makes them.

A project without endpoints costs one look at an index for each job that ends, and nothing else. A
delivery of an object that a lock protects has a higher id than those before it: in that order they
are sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from jobs import ids
from jobs.schedules.states import FireState
from jobs.states import JobState
from jobs.tables import (
    Job,
    Schedule,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookEvent,
    WebhookGroupCheck,
)
from jobs.webhooks import events
from jobs.webhooks.events import OF_GROUPS, Occurrence


@dataclass(frozen=True)
class Listener:
    """An endpoint, and what it wants; empty: everything."""

    id: str
    event_types: frozenset[str]

    def wants(self, event_type: str) -> bool:
        """Whether events of this type are sent to it."""
        return not self.event_types or event_type in self.event_types


def record(session: Session, occurrence: Occurrence | None, *, project_id: str) -> None:
    """Let it be sent to every endpoint of the project that wants it; ``None`` is nothing."""
    if occurrence is not None:
        _add(session, occurrence, _listeners(session, project_id), project_id=project_id)


def record_for(
    session: Session, occurrence: Occurrence, *, project_id: str, endpoint_id: str
) -> int:
    """Let it be sent to this endpoint alone; the delivery."""
    (delivery,) = _deliver(session, occurrence, [endpoint_id], project_id=project_id)
    return delivery


def job_ended(
    session: Session,
    *,
    job_id: str,
    project_id: str,
    kind: str,
    state: JobState,
    error_code: str | None,
    group_id: str | None,
) -> None:
    """Record the end of a job; whether its group has ended is looked up behind this transaction.

    Of two members that end at once, neither sees the end of the other.
    """
    listeners = _listeners(session, project_id)
    if not listeners:
        return
    occurrence = events.job_ended(
        job_id=job_id, kind=kind, state=state, error_code=error_code, group_id=group_id
    )
    _add(session, occurrence, listeners, project_id=project_id)
    if group_id is not None and any(each.wants(name) for each in listeners for name in OF_GROUPS):
        session.execute(insert(WebhookGroupCheck).values(group_id=group_id))


def fire_ended(
    session: Session,
    *,
    schedule_id: str,
    fire_id: int,
    state: FireState,
    due: datetime,
    until: datetime | None = None,
    count: int = 1,
) -> None:
    """Record a fire that failed, was skipped or missed; one that ended in another way is none."""
    if state not in events.OF_FIRES:
        return
    project_id = session.scalar(sa.select(Schedule.project_id).where(Schedule.id == schedule_id))
    assert project_id is not None
    listeners = _listeners(session, project_id)
    if not any(each.wants(events.OF_FIRES[state]) for each in listeners):
        return
    group_id, jobs = _of_fire(session, fire_id)
    occurrence = events.fire_ended(
        fire_id=fire_id,
        schedule_id=schedule_id,
        state=state,
        due=due,
        until=until,
        count=count,
        group_id=group_id,
        jobs=jobs,
    )
    _add(session, occurrence, listeners, project_id=project_id)


def _of_fire(session: Session, fire_id: int) -> tuple[str | None, list[str]]:
    """The group of a fire, and its jobs."""
    rows = session.execute(
        sa.select(Job.group_id, Job.id)
        .where(Job.fire_id == fire_id, Job.deleted_at.is_(None))
        .order_by(Job.created_at, Job.id)
    ).all()
    return next((row.group_id for row in rows), None), [row.id for row in rows]


def _listeners(session: Session, project_id: str) -> list[Listener]:
    rows = session.execute(
        sa.select(WebhookEndpoint.id, WebhookEndpoint.event_types).where(
            WebhookEndpoint.project_id == project_id, WebhookEndpoint.deleted_at.is_(None)
        )
    )
    return [Listener(endpoint_id, frozenset(types)) for endpoint_id, types in rows]


def _add(
    session: Session, occurrence: Occurrence, listeners: Sequence[Listener], *, project_id: str
) -> None:
    wanted = [
        each.id
        for each in listeners
        if each.wants(occurrence.type) and each.id != occurrence.object_id
    ]
    if wanted:
        _deliver(session, occurrence, wanted, project_id=project_id)


def _deliver(
    session: Session, occurrence: Occurrence, endpoint_ids: Sequence[str], *, project_id: str
) -> Sequence[int]:
    """The new deliveries; none of an event that is there already."""
    event_id = session.scalar(
        insert(WebhookEvent)
        .values(
            id=occurrence.id or ids.event(),
            project_id=project_id,
            type=occurrence.type.value,
            data=occurrence.data,
        )
        .on_conflict_do_nothing(index_elements=["id"])
        .returning(WebhookEvent.id)
    )
    if event_id is None:
        return ()
    return session.scalars(
        insert(WebhookDelivery).returning(WebhookDelivery.id),
        [
            {"endpoint_id": each, "event_id": event_id, "object_id": occurrence.object_id}
            for each in endpoint_ids
        ],
    ).all()
