"""Facts of the ledger for ``jobs.monitoring``: sums by cheap, indexed queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.kinds import BULK, TRAINING
from jobs.lookups import predicates
from jobs.queries.capacity import PLANNERS
from jobs.schedules.states import FireState
from jobs.states import ACTIVE, CLAIMABLE, LIVE_RUN, ChunkState, JobState
from jobs.tables import (
    Checkpoint,
    Chunk,
    CollectionRound,
    ControlStatus,
    Fire,
    Host,
    Job,
    RefusedMessage,
    Run,
    Schedule,
    StorageUsage,
    WebhookDelivery,
    WebhookEndpoint,
    Worker,
)
from jobs.webhooks.states import DeliveryState

HOUR = timedelta(hours=1)
MOST_COUNTED = 10_000

Counts = list[tuple[tuple[str, ...], float]]
"""Values of the labels, and the figure."""


class Waits(StrEnum):
    """What a job waits for; ``waiting_reason`` says the same in words."""

    WORKER = "no_worker"  # no worker of its pool is heard
    TURN = "turn"  # other jobs have the slots, or its messages are on their way
    RETRY = "retry"  # what is left of it has failed and is tried again later
    PLANNER = "planner"
    NO_PLANNER = "no_planner"
    HOSTS = "hosts"
    DEPENDENCY = "dependency"
    PAUSED = "paused"


@dataclass(frozen=True)
class Waiting:
    """Jobs of a pool that wait for the same."""

    pool: str
    reason: str
    jobs: int
    oldest_seconds: float  # since it was accepted


@dataclass(frozen=True)
class ControlFacts:
    """What control last did."""

    turn_age_seconds: float | None  # null: none has ever run
    broker_away: bool


@dataclass(frozen=True)
class WebhookFacts:
    """What waits for webhook endpoints."""

    pending: int  # at most ``MOST_COUNTED``
    oldest_seconds: float


def jobs(session: Session) -> Counts:
    """Jobs that have not ended, by state, kind and pool."""
    query = sa.select(Job.state, Job.kind, Job.pool, sa.func.count()).where(Job.state.in_(ACTIVE))
    return _counts(session, query.group_by(Job.state, Job.kind, Job.pool))


def jobs_ended(session: Session) -> Counts:
    """Jobs that ended within the last hour, by state and kind."""
    query = sa.select(Job.state, Job.kind, sa.func.count())
    lately = Job.finished_at > sa.func.now() - HOUR
    return _counts(session, query.where(lately).group_by(Job.state, Job.kind))


def waiting(session: Session) -> list[Waiting]:
    """Jobs that do not move, by pool and what they wait for."""
    found = (
        sa.select(Job.pool, _waits_for().label("reason"), Job.created_at)
        .where(Job.state.in_(ACTIVE))
        .subquery()
    )
    age = _seconds(sa.func.now() - sa.func.min(found.c.created_at))
    query = (
        sa.select(found.c.pool, found.c.reason, sa.func.count(), age)
        .select_from(found)
        .group_by(found.c.pool, found.c.reason)
    )
    rows = session.execute(query)
    return [Waiting(*row) for row in rows if row.reason is not None]  # null: they move


def workers(session: Session) -> Counts:
    """Workers and planners on record, by pool and whether they are heard."""
    heard = Worker.beat_at > sa.func.now() - predicates.SILENCE
    state = sa.case((heard, "heard"), else_="silent")
    query = sa.select(Worker.pool, state, sa.func.count()).group_by(Worker.pool, state)
    return _counts(session, query)


def hosts(session: Session) -> Counts:
    """Training hosts on record, by pool and what they do."""
    heard = Host.beat_at > sa.func.now() - predicates.SILENCE
    state = sa.case(
        (~heard, "silent"),
        (Host.draining, "draining"),
        (Host.run_id.is_not(None), "busy"),
        else_="idle",
    )
    query = sa.select(Host.pool, state, sa.func.count()).group_by(Host.pool, state)
    return _counts(session, query)


def control(session: Session) -> ControlFacts:
    """When control turned last, and whether it reached the broker."""
    age = _seconds(sa.func.now() - ControlStatus.turned_at)
    row = session.execute(sa.select(age, ControlStatus.broker_error.is_not(None))).one_or_none()
    return ControlFacts(None, broker_away=False) if row is None else ControlFacts(*row)


def messages_refused(session: Session) -> int:
    """Different messages that were refused within the last hour."""
    lately = RefusedMessage.last_at > sa.func.now() - HOUR
    return session.scalar(sa.select(sa.func.count()).where(lately)) or 0


def runs(session: Session) -> Counts:
    """Live runs by pool and state."""
    query = sa.select(Job.pool, Run.state, sa.func.count()).select_from(Run)
    live = query.join(Job, Job.id == Run.job_id).where(Run.state.in_(LIVE_RUN))
    return _counts(session, live.group_by(Job.pool, Run.state))


def checkpoint_ages(session: Session) -> Counts:
    """By pool, the longest time since the last checkpoint of a live run, or since it began."""
    newest = (
        sa.select(sa.func.max(Checkpoint.created_at))
        .where(Checkpoint.job_id == Run.job_id, predicates.checkpoint_usable())
        .scalar_subquery()
    )
    since = sa.func.greatest(newest, Run.started_at)  # which leaves nulls aside
    query = (
        sa.select(Job.pool, sa.func.max(_seconds(sa.func.now() - since)))
        .select_from(Run)
        .join(Job, Job.id == Run.job_id)
        .where(Run.state.in_(LIVE_RUN), Run.started_at.is_not(None), Job.kind == "finetune")
        .group_by(Job.pool)
    )
    return _counts(session, query)


def schedules(session: Session) -> Counts:
    """Schedules by whether they are paused."""
    state = sa.case((Schedule.paused_at.is_(None), "active"), else_="paused")
    query = sa.select(state, sa.func.count()).where(Schedule.deleted_at.is_(None)).group_by(state)
    return _counts(session, query)


def schedule_lag(session: Session) -> float:
    """Seconds by which the latest fire is late that is due; 0: none is."""
    lag = _seconds(sa.func.now() - sa.func.min(Schedule.next_at))
    return session.scalar(sa.select(lag).where(Schedule.next_at <= sa.func.now())) or 0.0


def fires(session: Session) -> Counts:
    """Fires that ended within the last hour, by state; each missed fire time counts."""
    lately = sa.and_(
        Fire.schedule_id == Schedule.id, Fire.ended_at > sa.func.now() - HOUR
    )  # by the index of each schedule
    query = (
        sa.select(Fire.state, sa.func.sum(Fire.count))
        .select_from(Schedule)
        .join(Fire, lately)
        .where(Schedule.deleted_at.is_(None))
        .group_by(Fire.state)
    )
    ended = (FireState.SUCCEEDED, FireState.FAILED, FireState.SKIPPED, FireState.MISSED)
    return _every((*ended, FireState.CANCELLED), _counts(session, query))


def webhook_endpoints(session: Session) -> Counts:
    """Endpoints by how they do; 0 where none does, so that the first one is seen as a rise."""
    state = sa.case(
        (WebhookEndpoint.disabled_at.is_not(None), "disabled"),
        (WebhookEndpoint.failures > 0, "failing"),
        else_="well",
    )
    there = WebhookEndpoint.deleted_at.is_(None)
    query = sa.select(state, sa.func.count()).where(there).group_by(state)
    return _every(("well", "failing", "disabled"), _counts(session, query))


def webhook_deliveries(session: Session) -> WebhookFacts:
    """Deliveries that wait."""
    some = (
        sa.select(WebhookDelivery.created_at)
        .where(WebhookDelivery.state == DeliveryState.PENDING)
        .limit(MOST_COUNTED)
        .subquery()
    )
    age = _seconds(sa.func.now() - sa.func.min(some.c.created_at))
    count, oldest = session.execute(sa.select(sa.func.count(), age).select_from(some)).one()
    return WebhookFacts(count, oldest or 0.0)


def storage(session: Session, *, limit: int) -> Counts:
    """Bytes by project and kind, of the projects with the most; the others as one."""
    largest = (
        sa.select(StorageUsage.project_id)
        .group_by(StorageUsage.project_id)
        .order_by(sa.func.sum(StorageUsage.bytes).desc())
        .limit(limit)
    )
    named = sa.case((StorageUsage.project_id.in_(largest), StorageUsage.project_id), else_="other")
    found = sa.select(named.label("project"), StorageUsage.kind, StorageUsage.bytes).subquery()
    query = sa.select(found.c.project, found.c.kind, sa.func.sum(found.c.bytes))
    return _counts(session, query.group_by(found.c.project, found.c.kind))


def collection_age(session: Session) -> float | None:
    """Seconds since the garbage collector ended a round; ``None``: it never began."""
    return session.scalar(sa.select(_seconds(sa.func.now() - CollectionRound.ended_at)))


def _waits_for() -> sa.ColumnElement[Any]:
    """What a job waits for; null: it moves. In the order of ``decisions.waiting_reason``."""
    of_job = sa.select(Chunk.id).where(Chunk.job_id == Job.id)
    leased = _has(of_job.where(Chunk.state == ChunkState.LEASED))
    of_pending = of_job.where(Chunk.state == ChunkState.PENDING)
    pending, due = _has(of_pending), _has(of_pending.where(predicates.chunk_due()))
    live = sa.select(Run.id).where(Run.job_id == Job.id, Run.state.in_(LIVE_RUN)).exists()
    later = Job.not_before > sa.func.now()
    finishes = sa.and_(
        Job.state.in_((JobState.FINALIZING, JobState.CANCELLING)), Job.kind.in_(BULK), ~leased
    )
    plans = sa.or_(
        Job.state == JobState.QUEUED,
        sa.and_(Job.state == JobState.PLANNING, ~leased, ~pending),
    )
    free = sa.or_(Job.step_lease_expires_at.is_(None), Job.step_lease_expires_at < sa.func.now())
    return sa.case(
        (Job.state == JobState.PAUSED, Waits.PAUSED.value),
        (sa.and_(Job.state == JobState.QUEUED, Job.held), Waits.DEPENDENCY.value),
        (
            sa.and_(Job.kind.in_(TRAINING), Job.state == JobState.RUNNING, ~live),
            sa.case((later, Waits.RETRY.value), else_=Waits.HOSTS.value),
        ),
        (
            sa.and_(sa.or_(plans, finishes), free),
            sa.case(
                (Job.step_not_before > sa.func.now(), Waits.RETRY.value),
                (_heard(sa.literal(PLANNERS)), Waits.PLANNER.value),
                else_=Waits.NO_PLANNER.value,
            ),
        ),
        (
            sa.and_(Job.kind.in_(BULK), Job.state.in_(CLAIMABLE), ~leased, pending),
            sa.case(
                (~_heard(Job.pool), Waits.WORKER.value),
                (~due, Waits.RETRY.value),
                else_=Waits.TURN.value,
            ),
        ),
        else_=sa.null(),
    )


def _has(query: sa.Select[Any]) -> sa.ColumnElement[bool]:
    """Whether the query has a row; unlike ``EXISTS`` it is never answered from all rows of all."""
    return query.limit(1).scalar_subquery().is_not(None)


def _heard(pool: Any) -> sa.ColumnElement[bool]:
    """Whether a worker of the pool is heard."""
    lately = sa.func.now() - predicates.OVERDUE
    return sa.select(Worker.name).where(Worker.pool == pool, Worker.beat_at > lately).exists()


def _seconds(interval: sa.ColumnElement[Any]) -> sa.ColumnElement[float]:
    return sa.cast(sa.extract("epoch", interval), sa.Double)


def _every(states: Sequence[str], counts: Counts) -> Counts:
    found = dict(counts)
    return [((state,), found.get((state,), 0.0)) for state in states]


def _counts(session: Session, query: sa.Select[*tuple[Any, ...]]) -> Counts:
    """Rows of labels, the figure last."""
    rows: Sequence[Any] = session.execute(query).all()
    return [(tuple(map(str, row[:-1])), float(row[-1])) for row in rows]
