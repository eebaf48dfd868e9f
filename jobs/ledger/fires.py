"""Fires: a row unique by schedule and fire time, in one transaction with its jobs (promise P8).

Which process holds the lock on a schedule's row decides about its fires: any control process may,
and one that dies in the middle leaves nothing. The lock is always taken before that on a fire; a
job that ends takes the lock on its own fire alone (``jobs.ledger.fire_states``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy.orm import Session

from jobs import ids
from jobs.ledger import fire_drift, fire_queue, fire_states, fire_submission, schedule_rows
from jobs.schedules import policy
from jobs.schedules.calendar import FireTime
from jobs.schedules.definition import Definition
from jobs.schedules.policy import Action, DueFires, Overlap
from jobs.schedules.states import FireOrigin, FireState
from jobs.settings import Settings
from jobs.tables import Fire, Schedule

log = structlog.get_logger()

BATCH = 20
"""Jobs of one schedule that one transaction submits, at least one fire's: no lock is held for long.
"""

_STATES = {
    Action.START: FireState.SUBMITTED,
    Action.SKIP: FireState.SKIPPED,
    Action.BUFFER: FireState.BUFFERED,
}


@dataclass(frozen=True)
class Backfill:
    """What a backfill asked for: fires that wait or run, and times that had a job before."""

    id: str
    fires: int
    left_out: int


def fire_due(session: Session, *, now: datetime, settings: Settings) -> int | None:
    """Let go what is due of one schedule; the number of fires, ``None``: no schedule is due.

    A schedule that another process holds is not waited for.
    """
    schedule = session.scalar(
        sa.select(Schedule)
        .where(Schedule.next_at <= now)
        .order_by(Schedule.next_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    if schedule is None:
        return None
    return let_go(session, schedule, settings=settings, now=now)


def let_go(
    session: Session,
    schedule: Schedule,
    *,
    settings: Settings,
    now: datetime,
    whatever_is_due: bool = False,
) -> int:
    """Let go the fires of a locked schedule; the number of them.

    ``whatever_is_due``: without waiting for the jitter, and all at once. A schedule that cannot be
    read any more, as where its zone was removed, is paused, with the reason in its note.
    """
    try:
        definition = schedule_rows.definition(session, schedule)
        due = _due(schedule, definition, now=now, jitter=not whatever_is_due)
    except Exception as error:  # else it would be due again at once, before all others
        log.exception("a schedule cannot be read and is paused", schedule=schedule.id)
        _set_aside(session, schedule, error, now=now)
        return 0
    for missed in due.missed:
        fire_queue.add_missed(session, schedule, missed, timing=definition.timing, now=now)
    done: list[FireTime] = []
    failure = None
    at_once = max(1, BATCH // len(definition.jobs))
    for fire in due.let_go if whatever_is_due else due.let_go[:at_once]:
        done.append(fire)
        _, failure = _let_go_one(
            session,
            schedule,
            fire,
            overlap=definition.policy.overlap,
            origin=FireOrigin.CALENDAR,
            settings=settings,
            now=now,
        )
        if failure is not None and definition.policy.pause_on_failure:
            break
    _advance(session, schedule, due, done, now=now)
    if failure is not None and definition.policy.pause_on_failure:
        pause(session, schedule, note=_failed(done[-1].due, failure), now=now)
    return len(done)


def trigger(
    session: Session,
    schedule_id: str,
    *,
    project_id: str,
    overlap: Overlap,
    idempotency_key: str | None,
    settings: Settings,
    now: datetime,
) -> int:
    """The id of a fire of this moment, paused or not; a repeated key is the same fire."""
    schedule = schedule_rows.locked(session, schedule_id, project_id=project_id)
    earlier = _earlier(session, schedule, idempotency_key)
    if earlier is not None:
        return earlier
    zone = schedule_rows.definition(session, schedule).timing.zone
    due = now if now.microsecond else now + timedelta(microseconds=1)  # no time of the calendar
    while True:
        fire_id, _ = _let_go_one(
            session,
            schedule,
            FireTime(due, due.astimezone(zone)),
            overlap=overlap,
            origin=FireOrigin.TRIGGER,
            settings=settings,
            now=now,
            idempotency_key=idempotency_key,
        )
        if fire_id is not None:
            return fire_id
        due += timedelta(microseconds=1)


def backfill(
    session: Session,
    schedule_id: str,
    *,
    project_id: str,
    since: datetime,
    until: datetime,
    at_most: int,
    settings: Settings,
    now: datetime,
) -> Backfill:
    """Let go the fire times from ``since`` to ``until`` that have had no job, oldest first.

    At most ``at_most`` of them have a job under way at a time. Raises ``BadRequest``.
    """
    schedule = schedule_rows.locked(session, schedule_id, project_id=project_id)
    timing = schedule_rows.definition(session, schedule).timing
    times = policy.backfilled(timing, since, until, now=now)
    backfill_id = ids.backfill()
    values: dict[str, Any] = {
        "backfill": backfill_id,
        "at_most": at_most,
        "reason": "it waits for its turn",
    }
    new, again = fire_queue.repeat(session, schedule, times, now=now, **values)
    for fire in new:
        fire_queue.add(
            session,
            schedule,
            fire,
            origin=FireOrigin.BACKFILL,
            state=FireState.BUFFERED,
            now=now,
            **values,
        )
    start_buffered(session, schedule, settings=settings, now=now)
    made = len(new) + again
    return Backfill(backfill_id, fires=made, left_out=len(times) - made)


def follow(session: Session, *, now: datetime, settings: Settings) -> int | None:
    """Do what follows where fires of a schedule have ended; their number, ``None``: none have.

    The next fire that waits starts, and a failure pauses the schedule if its policy says so.
    """
    schedule = session.scalar(
        sa.select(Schedule)
        .join(Fire, Fire.schedule_id == Schedule.id)
        .where(Fire.to_follow, Fire.ended_at.is_not(None))
        .limit(1)
        .with_for_update(skip_locked=True, of=Schedule)
    )
    if schedule is None:
        return None
    unordered = session.scalars(
        sa.update(Fire)
        .where(Fire.schedule_id == schedule.id, Fire.to_follow, Fire.ended_at.is_not(None))
        .values(to_follow=False, cancel_at=None)
        .returning(Fire)
    )
    ended = sorted(unordered, key=lambda fire: fire.due)
    fire_states.tell(session, ended)
    if schedule.deleted_at is None:
        try:
            with session.begin_nested():
                drift_policy = schedule_rows.definition(session, schedule).policy.drift
                fire_drift.judge(session, ended, drift_policy)
                _pause_on_failure(session, schedule, ended, now=now)
                start_buffered(session, schedule, settings=settings, now=now)
        except sa.exc.SQLAlchemyError:
            raise
        except Exception as error:  # as above
            log.exception("a schedule cannot be read and is paused", schedule=schedule.id)
            _set_aside(session, schedule, error, now=now)
    return len(ended)


def start_buffered(
    session: Session, schedule: Schedule, *, settings: Settings, now: datetime
) -> None:
    """Start the fires of a locked schedule that wait and may start; none of a paused one."""
    overlap = schedule_rows.definition(session, schedule).policy.overlap
    while schedule.paused_at is None:
        started = fire_queue.startable(session, schedule, overlap)
        failures = [_start(session, schedule, fire, settings=settings, now=now) for fire in started]
        if not any(failures):  # else others may start in the place of those that could not
            return


def pause(session: Session, schedule: Schedule, *, note: str | None, now: datetime) -> None:
    """Let nothing go until the schedule is resumed; what is due is recorded as skipped."""
    if schedule.paused_at is not None:
        schedule_rows.update(session, schedule, note=note)
        return
    if schedule.next_at is not None:
        definition = schedule_rows.definition(session, schedule)
        due = _due(schedule, definition, now=now, jitter=False)
        for missed in due.missed:
            fire_queue.add_missed(session, schedule, missed, timing=definition.timing, now=now)
        for fire in due.let_go:
            fire_queue.add(
                session,
                schedule,
                fire,
                origin=FireOrigin.CALENDAR,
                state=FireState.SKIPPED,
                reason="the schedule was paused before this fire was let go",
                now=now,
            )
    fire_queue.explain(session, schedule, reason="the schedule is paused")
    schedule_rows.update(
        session, schedule, paused_at=now, note=note, cursor=now, **schedule_rows.NO_NEXT
    )


def _let_go_one(
    session: Session,
    schedule: Schedule,
    fire: FireTime,
    *,
    overlap: Overlap,
    origin: FireOrigin,
    settings: Settings,
    now: datetime,
    idempotency_key: str | None = None,
) -> tuple[int | None, str | None]:
    """The id of the fire and why it failed, if it did; ``None``: there is one of this time."""
    decision = fire_queue.decide(session, schedule, overlap, fire.due)
    state = _STATES[decision.action]
    fire_id = fire_queue.add(
        session,
        schedule,
        fire,
        origin=origin,
        state=state,
        reason=decision.reason,
        idempotency_key=idempotency_key,
        now=now,
    )
    if fire_id is None:
        return None, None
    fire_queue.apply(session, schedule, decision, fire.due, now=now)
    if state is not FireState.SUBMITTED:
        return fire_id, None
    return fire_id, fire_submission.submit(
        session,
        schedule,
        fire_id,
        due=fire.due,
        version=schedule.version,
        settings=settings,
        now=now,
    )


def _start(
    session: Session, schedule: Schedule, fire: Fire, *, settings: Settings, now: datetime
) -> str | None:
    """Start a fire that waited; why it failed, if it did."""
    failure = fire_submission.submit(
        session,
        schedule,
        fire.id,
        due=fire.due,
        version=fire.version,
        settings=settings,
        now=now,
    )
    definition = schedule_rows.definition(session, schedule)
    if failure is not None and fire.backfill is None and definition.policy.pause_on_failure:
        pause(session, schedule, note=_failed(fire.due, failure), now=now)
    return failure


def _due(schedule: Schedule, definition: Definition, *, now: datetime, jitter: bool) -> DueFires:
    timing = definition.timing
    if not jitter:
        timing = timing.model_copy(update={"jitter": timedelta()})
    most, local = timing.max_fires, schedule.cursor_local
    return policy.due_fires(
        timing,
        schedule_id=schedule.id,
        cursor=schedule.cursor,
        now=now,
        last_local=datetime.fromisoformat(local) if local else None,
        catch_up=definition.policy.catch_up,
        fires_left=None if most is None else max(0, most - schedule.fired),
    )


def _advance(
    session: Session, schedule: Schedule, due: DueFires, done: Sequence[FireTime], *, now: datetime
) -> None:
    """Move the cursor behind what was done, and set the time of the next fire."""
    last = done[-1] if done else due.last
    left = due.let_go[len(done) :]
    following = left[0] if left else due.following
    schedule_rows.update(
        session,
        schedule,
        cursor=last.due if last else schedule.cursor,
        cursor_local=last.local.isoformat() if last else schedule.cursor_local,
        fired=schedule.fired + len(done),
        next_due=following and following.due,
        next_at=now if left else due.following_at,
    )


def _pause_on_failure(
    session: Session, schedule: Schedule, ended: Sequence[Fire], *, now: datetime
) -> None:
    failed = [f for f in ended if f.state is FireState.FAILED and f.backfill is None]
    definition = schedule_rows.definition(session, schedule)
    if failed and definition.policy.pause_on_failure and schedule.paused_at is None:
        why = "a job of its group failed" if definition.is_group else "its job failed"
        pause(session, schedule, note=_failed(failed[-1].due, why), now=now)


def _set_aside(session: Session, schedule: Schedule, error: Exception, *, now: datetime) -> None:
    """Pause a schedule that cannot be read, so that it keeps no other from its fires."""
    note = f"paused because it cannot be read any more: {' '.join(str(error).split())[:1000]}"
    schedule_rows.update(session, schedule, paused_at=now, note=note, **schedule_rows.NO_NEXT)


def _failed(due: datetime, why: str) -> str:
    return f"paused because the fire of {due:%Y-%m-%dT%H:%M:%SZ} failed: {why}"


def _earlier(session: Session, schedule: Schedule, key: str | None) -> int | None:
    if key is None:
        return None
    return session.scalar(
        sa.select(Fire.id).where(Fire.schedule_id == schedule.id, Fire.idempotency_key == key)
    )
