"""Schedules: what fires when, by hand or over again, and how it ended."""

from __future__ import annotations

import functools
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import Field
from sqlalchemy.orm import Session

from api.server import schemas
from api.server.creates import Counted
from api.server.dependencies import (
    After,
    ByAge,
    IdempotencyKey,
    KeyHash,
    Limit,
    NoteMade,
    ProjectId,
    ScheduleKey,
    Shared,
    Transaction,
)
from jobs.kinds import Strict
from jobs.ledger import creations
from jobs.ledger import fires as fire_ledger
from jobs.ledger import schedules as ledger
from jobs.lookups import clock
from jobs.moments import Moment
from jobs.queries import fires, schedules
from jobs.queries.paging import Order
from jobs.schedules import preview
from jobs.schedules.definition import Definition, ScheduleChange, ScheduleRequest
from jobs.schedules.policy import Overlap
from jobs.schedules.states import FireState

router = APIRouter(prefix="/v1/schedules", tags=["schedules"])

Behind = Annotated[int | None, Query(ge=0, lt=2**62, description="The `next` of the page before.")]
MOST_AT_A_TIME = 100


class Note(Strict):
    """Why a schedule is paused or resumed."""

    note: str | None = Field(None, max_length=500, description="Shown with the schedule.")


class Trigger(Strict):
    """How a schedule is triggered by hand."""

    overlap: Overlap = Field(
        Overlap.ALLOW, description="While a job of an earlier fire runs; not the schedule's own."
    )


class BackfillRequest(Strict):
    """Which fire times are done again."""

    since: Moment = Field(description="No fire time is earlier.")
    until: Moment = Field(description="No fire time is later.")
    at_most: int = Field(
        1, ge=1, le=MOST_AT_A_TIME, description="Fires with a job under way at a time."
    )


@router.post("", status_code=201, responses={200: {"model": schemas.Schedule}})
def create_schedule(
    *,
    body: ScheduleRequest,
    response: Response,
    session: Transaction,
    project: ProjectId,
    key: KeyHash,
    shared: Shared,
    note_made: NoteMade,
    counted: Counted,
    idempotency_key: IdempotencyKey = None,
) -> schemas.Schedule:
    """Make a schedule: 201 for a new one, 200 for one that this key has made before."""
    definition = Definition(timing=body.timing, policy=body.policy, jobs=body.jobs)
    create = functools.partial(
        ledger.create,
        session,
        project_id=project,
        name=body.name,
        definition=definition,
        made_by=key,
        idempotency_key=idempotency_key,
        settings=shared.settings,
        now=clock.now(session),
    )
    schedule_id, new = creations.once(session, counted, create)
    note_made(schedule_id)
    response.status_code = 201 if new else 200
    return _shown(session, schedule_id, project)


@router.get("")
def list_schedules(
    *,
    session: Transaction,
    project: ProjectId,
    limit: Limit = 20,
    after: After = None,
    order: ByAge = Order.DESC,
) -> schemas.SchedulePage:
    """The project's schedules, newest first."""
    found, more = schedules.page(session, project_id=project, limit=limit, after=after, order=order)
    return schemas.SchedulePage.of(found, has_more=more)


@router.get("/{schedule}")
def get_schedule(
    schedule: ScheduleKey, session: Transaction, project: ProjectId
) -> schemas.Schedule:
    """One schedule, by its id or name."""
    return _shown(session, schedule, project)


@router.patch("/{schedule}")
def edit_schedule(
    *,
    schedule: ScheduleKey,
    body: ScheduleChange,
    session: Transaction,
    project: ProjectId,
    key: KeyHash,
    shared: Shared,
) -> schemas.Schedule:
    """Make a new version of what changes; fires that were due before are let go first."""
    schedule_id = ledger.edit(
        session,
        schedule,
        body.fields(),
        project_id=project,
        made_by=key,
        expected_version=body.version,
        settings=shared.settings,
        now=clock.now(session),
    )
    return _shown(session, schedule_id, project)


@router.delete("/{schedule}")
def delete_schedule(
    schedule: ScheduleKey, session: Transaction, project: ProjectId
) -> schemas.Deleted:
    """Delete a schedule; its jobs stay, those under way go on."""
    found = ledger.delete(session, schedule, project_id=project, now=clock.now(session))
    return schemas.Deleted(id=found, object="schedule")


@router.post("/{schedule}/pause")
def pause_schedule(
    schedule: ScheduleKey, session: Transaction, project: ProjectId, body: Note | None = None
) -> schemas.Schedule:
    """Let nothing go until it is resumed; jobs under way go on."""
    note = None if body is None else body.note
    found = ledger.pause(session, schedule, project_id=project, note=note, now=clock.now(session))
    return _shown(session, found, project)


@router.post("/{schedule}/resume")
def resume_schedule(
    schedule: ScheduleKey,
    *,
    session: Transaction,
    project: ProjectId,
    shared: Shared,
    body: Note | None = None,
) -> schemas.Schedule:
    """Go on with the next fire time; those that passed meanwhile are left out."""
    found = ledger.resume(
        session,
        schedule,
        project_id=project,
        note=None if body is None else body.note,
        settings=shared.settings,
        now=clock.now(session),
    )
    return _shown(session, found, project)


@router.post("/{schedule}/trigger", status_code=201)
def trigger_schedule(
    schedule: ScheduleKey,
    *,
    session: Transaction,
    project: ProjectId,
    shared: Shared,
    counted: Counted,
    body: Trigger | None = None,
    idempotency_key: IdempotencyKey = None,
) -> schemas.Fire:
    """Fire now, paused or not; a repeated `Idempotency-Key` is the same fire."""

    def trigger() -> tuple[str, bool]:
        fire_id = fire_ledger.trigger(
            session,
            schedule,
            project_id=project,
            overlap=(body or Trigger()).overlap,
            idempotency_key=idempotency_key,
            settings=shared.settings,
            now=clock.now(session),
        )
        return str(fire_id), True

    fire_id, _ = creations.once(session, counted, trigger)
    return schemas.Fire.of(fires.get(session, int(fire_id)))


@router.post("/{schedule}/backfill", status_code=201)
def backfill_schedule(
    schedule: ScheduleKey,
    *,
    body: BackfillRequest,
    session: Transaction,
    project: ProjectId,
    shared: Shared,
) -> schemas.Backfill:
    """Fire for past times that have had no job, oldest first; repeated, it changes nothing."""
    made = fire_ledger.backfill(
        session,
        schedule,
        project_id=project,
        since=body.since,
        until=body.until,
        at_most=body.at_most,
        settings=shared.settings,
        now=clock.now(session),
    )
    return schemas.Backfill.of(made)


@router.get("/{schedule}/fires")
def list_fires(
    schedule: ScheduleKey,
    *,
    session: Transaction,
    project: ProjectId,
    limit: Limit = 20,
    after: Behind = None,
    order: ByAge = Order.DESC,
    state: Annotated[FireState | None, Query(description="Only fires in this state.")] = None,
) -> schemas.FirePage:
    """Its fires by time, the latest first: state, jobs, and why one has none."""
    row = schedules.row(session, schedule, project_id=project)
    found, more = fires.page(session, row.id, limit=limit, after=after, order=order, state=state)
    return schemas.FirePage(
        data=[schemas.Fire.of(view) for view in found],
        has_more=more,
        next=found[-1].fire.id if more else None,
    )


@router.get("/{schedule}/preview")
def preview_schedule(
    schedule: ScheduleKey,
    *,
    session: Transaction,
    project: ProjectId,
    limit: Annotated[int, Query(ge=1, le=100, description="How many.")] = 20,
) -> schemas.Preview:
    """Its next fires, in UTC and in its zone."""
    row = schedules.row(session, schedule, project_id=project)
    definition = Definition.model_validate(schedules.version(session, row).definition)
    paused = row.paused_at is not None
    found = preview.next_fires(
        definition.timing,
        schedule_id=row.id,
        after=clock.now(session) if paused else row.cursor,
        last_local=_time(row.cursor_local),
        fired=row.fired,
        count=limit,
    )
    return schemas.Preview.of(definition, found)


@router.get("/{schedule}/versions")
def list_versions(
    schedule: ScheduleKey,
    *,
    session: Transaction,
    project: ProjectId,
    limit: Limit = 20,
    after: Behind = None,
    order: ByAge = Order.DESC,
) -> schemas.ScheduleVersionPage:
    """What it was before each edit, newest first, and which key made it."""
    row = schedules.row(session, schedule, project_id=project)
    found, more = schedules.versions(session, row.id, limit=limit, after=after, order=order)
    return schemas.ScheduleVersionPage(
        data=[schemas.ScheduleVersion.of(version) for version in found],
        has_more=more,
        next=found[-1].version if more else None,
    )


def _shown(session: Session, key: str, project: str) -> schemas.Schedule:
    return schemas.Schedule.of(schedules.get(session, key, project_id=project))


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
