"""Schedules: create, edit, pause, resume, delete. ``jobs.ledger.fires`` lets them go (P8).

Every function takes the lock on the schedule's row first; the time is passed in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from pydantic import ValidationError
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from jobs import ids, validation
from jobs.errors import BadSpec, Conflict
from jobs.ledger import fire_queue, fire_submission, fires, idempotency, schedule_rows
from jobs.schedules import definition as definitions
from jobs.schedules import policy
from jobs.schedules.definition import Definition
from jobs.settings import Settings
from jobs.tables import Schedule, ScheduleVersion


def create(
    session: Session,
    *,
    project_id: str,
    name: str,
    definition: Definition,
    made_by: str,
    idempotency_key: str | None,
    settings: Settings,
    now: datetime,
) -> tuple[str, bool]:
    """The schedule's id, and whether it is new; a repeated key is as that of a job.

    ``made_by``: the sha256 of the key whose rights its fires use. Raises ``BadSpec`` and what a
    submission raises, and ``Conflict`` for a name that the project has.
    """
    schedule_id = ids.schedule()
    digest = hashlib.sha256(f"{name}\0{definition.model_dump_json()}".encode()).hexdigest()
    earlier = idempotency.earlier(
        session, Schedule, project_id=project_id, key=idempotency_key, digest=digest
    )
    if earlier is not None:
        return earlier, False
    fire_submission.check(
        session, definition, name=name, project_id=project_id, settings=settings, now=now
    )
    made = session.scalar(
        insert(Schedule)
        .values(
            id=schedule_id,
            project_id=project_id,
            name=name,
            version=1,
            idempotency_key=idempotency_key,
            request_sha256=digest,
            created_at=now,
            cursor=now,
            **_next(definition, schedule_id, now=now, fired=0),
        )
        .on_conflict_do_nothing()
        .returning(Schedule.id)
    )
    if made is None:
        earlier = idempotency.earlier(
            session, Schedule, project_id=project_id, key=idempotency_key, digest=digest
        )
        if earlier is not None:
            return earlier, False
        raise _name_taken(name)
    _add_version(session, schedule_id, 1, definition, made_by=made_by, now=now)
    return schedule_id, True


def edit(
    session: Session,
    schedule_id: str,
    change: Mapping[str, Any],
    *,
    project_id: str,
    made_by: str,
    settings: Settings,
    now: datetime,
    expected_version: int | None = None,
) -> str:
    """Make a new version of what changes; the id of the schedule.

    Fires that were due before are let go first, by the version under which they were due; no time
    before ``now`` becomes due by the new one. Raises ``BadSpec``, ``Conflict``, ``NotFound``.
    """
    schedule = schedule_rows.locked(session, schedule_id, project_id=project_id)
    if expected_version is not None and schedule.version != expected_version:
        raise Conflict(
            f"{schedule.name} has version {schedule.version} by now, not {expected_version}: "
            "look at it again, then repeat the edit",
            code="schedule_changed",
        )
    row = schedule_rows.version_row(session, schedule)
    before = Definition.model_validate(row.definition)
    after = _patched(before, {key: value for key, value in change.items() if key != "name"})
    _rename(session, schedule, change.get("name") or schedule.name)
    if after == before and row.made_by == made_by:
        return schedule.id
    fire_submission.check(
        session, after, name=schedule.name, project_id=project_id, settings=settings, now=now
    )
    if schedule.next_at is not None:
        fires.let_go(session, schedule, settings=settings, now=now, whatever_is_due=True)
    version = schedule.version + 1
    _add_version(session, schedule.id, version, after, made_by=made_by, now=now)
    values: dict[str, Any] = {"version": version}
    if after.timing != before.timing:
        values |= {"cursor": now, "cursor_local": None}
        if schedule.paused_at is None:
            values |= _next(after, schedule.id, now=now, fired=schedule.fired)
    schedule_rows.update(session, schedule, **values)
    return schedule.id


def pause(
    session: Session, schedule_id: str, *, project_id: str, note: str | None, now: datetime
) -> str:
    """Let nothing go until it is resumed; jobs under way go on. Another note replaces the first.

    A fire that is due and not yet let go is recorded as skipped.
    """
    schedule = schedule_rows.locked(session, schedule_id, project_id=project_id)
    fires.pause(session, schedule, note=note, now=now)
    return schedule.id


def resume(
    session: Session,
    schedule_id: str,
    *,
    project_id: str,
    note: str | None,
    settings: Settings,
    now: datetime,
) -> str:
    """Go on with the next fire time after ``now``; harmless on one that is not paused."""
    schedule = schedule_rows.locked(session, schedule_id, project_id=project_id)
    if schedule.paused_at is None:
        return schedule.id
    definition = schedule_rows.definition(session, schedule)
    following = _next(definition, schedule.id, now=now, fired=schedule.fired)
    schedule_rows.update(session, schedule, paused_at=None, note=note, cursor=now, **following)
    fire_queue.explain(session, schedule, reason="it waits until earlier fires have ended")
    fires.start_buffered(session, schedule, settings=settings, now=now)
    return schedule.id


def delete(session: Session, schedule_id: str, *, project_id: str, now: datetime) -> str:
    """Make it a tombstone; jobs under way go on, fires that wait are cancelled."""
    schedule = schedule_rows.locked(session, schedule_id, project_id=project_id)
    fire_queue.drop(session, schedule, reason="the schedule was deleted", now=now)
    schedule_rows.update(
        session, schedule, deleted_at=now, idempotency_key=None, **schedule_rows.NO_NEXT
    )
    return schedule.id


def _patched(before: Definition, change: Mapping[str, Any]) -> Definition:
    try:
        return Definition.model_validate(definitions.patched(before.dumped(), change))
    except ValidationError as error:
        message, param = validation.explain(error.errors())
        raise BadSpec(message, param=param) from error


def _rename(session: Session, schedule: Schedule, name: str) -> None:
    if name == schedule.name:
        return
    taken = session.scalar(
        sa.select(Schedule.id).where(
            Schedule.project_id == schedule.project_id,
            Schedule.name == name,
            Schedule.deleted_at.is_(None),
        )
    )
    if taken is not None:
        raise _name_taken(name)
    schedule_rows.update(session, schedule, name=name)


def _name_taken(name: str) -> Conflict:
    return Conflict(
        f"there is a schedule {name!r} in this project: edit or delete it, or take another name",
        code="schedule_exists",
        param="name",
    )


def _add_version(
    session: Session,
    schedule_id: str,
    version: int,
    definition: Definition,
    *,
    made_by: str,
    now: datetime,
) -> None:
    session.execute(
        insert(ScheduleVersion).values(
            schedule_id=schedule_id,
            version=version,
            definition=definition.dumped(),
            made_by=made_by,
            made_at=now,
        )
    )


def _next(
    definition: Definition, schedule_id: str, *, now: datetime, fired: int
) -> dict[str, datetime | None]:
    """The next fire after ``now`` as columns."""
    most = definition.timing.max_fires
    if most is not None and fired >= most:
        return dict(schedule_rows.NO_NEXT)
    following = policy.next_fire(definition.timing, schedule_id=schedule_id, after=now)
    if following is None:
        return dict(schedule_rows.NO_NEXT)
    fire, let_go_at = following
    return {"next_due": fire.due, "next_at": let_go_at}
