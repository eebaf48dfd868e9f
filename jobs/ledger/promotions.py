"""Decisions about aliases: each is recorded once, told, and carried out, in one transaction."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs import numbers
from jobs.decisions.alias_history import AliasChange
from jobs.ledger import events, registry, webhook_outbox
from jobs.tables import Json, Promotion
from jobs.webhooks import events as webhook_events


@dataclass(frozen=True)
class PromotionRecord:
    """A decision, as ``jobs.tables.Promotion`` keeps it."""

    alias: str
    version: int  # the candidate
    value: float
    incumbent: int | None  # that it was compared with; null: the alias pointed nowhere
    incumbent_value: float | None
    metric: str
    margin: float
    promoted: bool
    reason: str
    split: str | None = None
    rows: int | None = None  # of the split, which decided
    min_rows: int = 0  # that the gate asked for
    floors: Json | None = None  # those that were checked (``jobs.decisions.promotion``)
    reports: Json | None = None  # the evaluations of both


def record_promotion(
    session: Session, record: PromotionRecord, *, project_id: str, name: str, job_id: str
) -> bool:
    """Record a decision and carry it out; ``False`` if the alias has moved.

    When somebody has moved the alias since the comparison nothing is written: compare again. A
    decision of this job that is there already is not repeated.
    """
    registry.locked(session, name, project_id=project_id)
    if _is_there(session, record, name=name, job_id=job_id):
        return True
    place = {"project_id": project_id, "name": name, "alias": record.alias}
    if registry.pointed_to(session, **place) != record.incumbent:
        return False
    decision = vars(record) | {
        "floors": numbers.storable(record.floors),
        "reports": numbers.storable(record.reports),
    }
    session.add(Promotion(project_id=project_id, name=name, job_id=job_id, **decision))
    events.record(
        session, job_id=job_id, type="promotion", model=name, **numbers.storable(decision)
    )
    webhook_outbox.record(
        session,
        webhook_events.promotion_decided(name=name, job_id=job_id, decision=decision),
        project_id=project_id,
    )
    if record.promoted:
        registry.move_alias(
            session, **place, version=record.version, how=AliasChange.PROMOTION, job_id=job_id
        )
    session.flush()
    return True


def _is_there(session: Session, record: PromotionRecord, *, name: str, job_id: str) -> bool:
    query = sa.select(Promotion.id).where(
        Promotion.job_id == job_id,
        Promotion.name == name,
        Promotion.alias == record.alias,
        Promotion.version == record.version,
    )
    return session.scalar(query) is not None
