"""What the API answers about schedules and their fires."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, ValidationError

from jobs import ids, tables
from jobs.ledger.fires import Backfill as Made
from jobs.queries.fires import FireView
from jobs.queries.schedules import ScheduleView
from jobs.schedules import definition as definitions
from jobs.schedules import words
from jobs.schedules.definition import Definition
from jobs.schedules.preview import PreviewedFire
from jobs.schedules.states import FireOrigin, FireState
from jobs.states import JobState

Jobs = list[dict[str, Any]] | dict[str, dict[str, Any]]
"""What a fire submits: one job as `[{"spec": ...}]`, or those of a group by name."""

ScheduleState = Literal["active", "paused", "ended"]


class FiredJob(BaseModel):
    """A job of a fire."""

    id: str
    state: JobState
    member: str | None  # its name in the group; null: it is the only job
    skipped: str | None  # why it was cancelled: there was nothing for it to do; null: it was not


class DriftMeasure(BaseModel):
    """One measure of drift; ``now`` and ``before`` are means, or shares of failed rows."""

    psi: float
    now: float | None
    before: float | None


class DriftOfMember(BaseModel):
    """How the results of a job differ from those of its like in earlier fires."""

    drifted: bool
    words: str
    against: int  # earlier fires
    measures: dict[str, DriftMeasure]
    holds: str | None  # `name@alias` whose promotions are held back; null: none


class Drift(DriftOfMember):
    """How the results of a fire differ from those of earlier ones.

    Of a group ``measures`` and ``holds`` are empty: each member has its own.
    """

    threshold: float
    members: dict[str, DriftOfMember] | None = None  # by name; null: the fire has one job


class Fire(BaseModel):
    """One fire time of a schedule, or one trigger, and how it ended."""

    id: int
    object: Literal["fire"] = "fire"
    fire_time: datetime
    local_time: str  # the same in the zone of the schedule
    until: datetime | None  # the last of several missed fires in a row; null: it is one
    count: int  # how many missed fires in a row it stands for
    state: FireState
    reason: str | None  # why it waits, has no job, or failed; null: it has jobs
    origin: FireOrigin
    version: int  # of the schedule
    group: str | None  # of its jobs; null: it has one job or none
    jobs: list[FiredJob]
    backfill: str | None
    drift: Drift | None  # null: it was not compared with earlier ones
    made_at: datetime
    submitted_at: datetime | None
    ended_at: datetime | None

    @classmethod
    def of(cls, view: FireView) -> Self:
        """One fire."""
        fire = view.fire
        return cls(
            id=fire.id,
            fire_time=fire.due,
            local_time=fire.local,
            until=fire.until,
            count=fire.count,
            state=fire.state,
            reason=fire.reason,
            origin=fire.origin,
            version=fire.version,
            group=view.group_id,
            jobs=[FiredJob(**vars(job)) for job in view.jobs],
            backfill=fire.backfill,
            drift=None if fire.drift is None else Drift.model_validate(fire.drift),
            made_at=fire.made_at,
            submitted_at=fire.submitted_at,
            ended_at=fire.ended_at,
        )


class FirePage(BaseModel):
    """Fires, the latest first; ``next`` is the ``after`` of the next page."""

    object: Literal["list"] = "list"
    data: list[Fire]
    has_more: bool
    next: int | None


class Schedule(BaseModel):
    """A schedule: what it is, what is next and what came last."""

    id: str
    object: Literal["schedule"] = "schedule"
    name: str
    state: ScheduleState  # ended: no fire is left
    note: str | None  # of its last pause or resume
    words: str | None  # the timing; null: it cannot be read any more
    version: int
    timing: dict[str, Any]
    policy: dict[str, Any]
    jobs: Jobs
    next_fire_time: datetime | None  # null: paused or ended
    fired: int  # fire times let go; triggers and backfills do not count
    running: int  # fires whose jobs are under way
    buffered: int  # fires that wait
    last_fire: Fire | None
    created_at: datetime
    edited_at: datetime
    edited_by: str  # the id of the key

    @classmethod
    def of(cls, view: ScheduleView) -> Self:
        """One schedule as its owner sees it."""
        schedule, version = view.schedule, view.version
        return cls(
            id=schedule.id,
            name=schedule.name,
            state=_state(schedule),
            note=schedule.note,
            words=_words(version.definition),
            version=schedule.version,
            **definitions.shown(version.definition),
            next_fire_time=schedule.next_due,
            fired=schedule.fired,
            running=view.running,
            buffered=view.buffered,
            last_fire=None if view.last is None else Fire.of(view.last),
            created_at=schedule.created_at,
            edited_at=version.made_at,
            edited_by=ids.of_key(version.made_by),
        )


class SchedulePage(BaseModel):
    """Schedules, newest first."""

    object: Literal["list"] = "list"
    data: list[Schedule]
    has_more: bool
    first_id: str | None
    last_id: str | None

    @classmethod
    def of(cls, views: list[ScheduleView], *, has_more: bool) -> Self:
        """One page."""
        shown = [Schedule.of(view) for view in views]
        first, last = (shown[0].id, shown[-1].id) if shown else (None, None)
        return cls(data=shown, has_more=has_more, first_id=first, last_id=last)


class ScheduleVersion(BaseModel):
    """What a schedule was from one edit to the next."""

    version: int
    object: Literal["schedule_version"] = "schedule_version"
    words: str | None
    timing: dict[str, Any]
    policy: dict[str, Any]
    jobs: Jobs
    made_at: datetime
    made_by: str  # the id of the key

    @classmethod
    def of(cls, version: tables.ScheduleVersion) -> Self:
        """One version."""
        return cls(
            version=version.version,
            words=_words(version.definition),
            **definitions.shown(version.definition),
            made_at=version.made_at,
            made_by=ids.of_key(version.made_by),
        )


class ScheduleVersionPage(BaseModel):
    """Versions, newest first; ``next`` is the ``after`` of the next page."""

    object: Literal["list"] = "list"
    data: list[ScheduleVersion]
    has_more: bool
    next: int | None


class NextFire(BaseModel):
    """A fire that is to come."""

    fire_time: datetime
    local_time: str
    let_go_at: datetime  # with its jitter


class Preview(BaseModel):
    """The next fires of a schedule; of a paused one as if it were resumed now."""

    object: Literal["list"] = "list"
    words: str
    time_zone: str
    data: list[NextFire]

    @classmethod
    def of(cls, definition: Definition, found: list[PreviewedFire]) -> Self:
        """The next fires."""
        return cls(
            words=words.in_words(definition.timing),
            time_zone=definition.timing.time_zone,
            data=[
                NextFire(fire_time=each.due, local_time=each.local, let_go_at=each.let_go_at)
                for each in found
            ],
        )


class Backfill(BaseModel):
    """What a backfill asked for."""

    id: str
    object: Literal["backfill"] = "backfill"
    fires: int  # that wait or run
    left_out: int  # times that had a job before

    @classmethod
    def of(cls, made: Made) -> Self:
        """One backfill."""
        return cls(id=made.id, fires=made.fires, left_out=made.left_out)


def _state(schedule: tables.Schedule) -> ScheduleState:
    if schedule.paused_at is not None:
        return "paused"
    return "ended" if schedule.next_due is None else "active"


def _words(definition: dict[str, Any]) -> str | None:
    try:
        return words.in_words(Definition.model_validate(definition).timing)
    except ValidationError:  # as where its zone was removed from the data of zones
        return None
