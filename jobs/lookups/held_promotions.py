"""Promotions that a schedule holds back because results of it have drifted."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from jobs.kinds import BULK
from jobs.lookups import dependencies, fire_profiles
from jobs.lookups.fire_profiles import MEMBERS
from jobs.schedules.drift_policy import DriftPolicy
from jobs.states import JobState
from jobs.tables import Fire, Job, Json, Schedule, ScheduleVersion


def reason(session: Session, *, project_id: str, name: str, alias: str, job_id: str) -> str | None:
    """Why the version of a job may not take the alias now, in words; ``None``: nothing holds it.

    Of each schedule the latest fire that was compared counts, if its policy still holds promotions,
    for the aliases that name the models of its bulk jobs. Of the fire that the job is of itself
    those bulk jobs count that it needs, whatever their models are.
    """
    of_fires = _of_aliases(session, f"{name}@{alias}", project_id=project_id)
    return next(of_fires, None) or _of_own_fire(session, job_id)


def _of_aliases(session: Session, named: str, *, project_id: str) -> Iterator[str]:
    path = ("policy", "drift", "hold_promotion")
    holds = sa.func.jsonb_extract_path_text(ScheduleVersion.definition, *path) == "true"
    latest = (
        sa.select(Schedule.name, Fire.due, Fire.drift)
        .join(Schedule, Schedule.id == Fire.schedule_id)
        .join(ScheduleVersion, _current())
        .where(
            Schedule.project_id == project_id,
            Schedule.deleted_at.is_(None),
            Fire.drift.is_not(None),
            holds,
        )
        .ext(distinct_on(Fire.schedule_id))
        .order_by(Fire.schedule_id, Fire.due.desc())
    )
    for schedule, due, drift in session.execute(latest):
        for words in _drifted(drift or {}, named):
            yield f"the fire of {due:%Y-%m-%dT%H:%M:%SZ} of {schedule} drifted: {words}"


def _drifted(drift: Json, named: str) -> Iterator[str]:
    """How the jobs of a fire have drifted whose model this alias names."""
    members = drift.get(MEMBERS)
    if members is None:
        if drift.get("drifted") and drift["holds"] == named:
            yield drift["words"]
        return
    for member, each in members.items():
        if each["drifted"] and each["holds"] == named:
            yield f"{member}: {each['words']}"


def _of_own_fire(session: Session, job_id: str) -> str | None:
    """How a bulk job that the job needs has drifted, of the same fire; ``None``: none has."""
    row = session.execute(
        sa.select(Fire, Schedule.name, ScheduleVersion.definition["policy"]["drift"].label("drift"))
        .join(Job, Job.fire_id == Fire.id)
        .join(Schedule, Schedule.id == Fire.schedule_id)
        .join(ScheduleVersion, _current())
        .where(Job.id == job_id, Job.group_id.is_not(None), Schedule.deleted_at.is_(None))
    ).one_or_none()
    policy = DriftPolicy.model_validate(row.drift) if row is not None and row.drift else None
    if row is None or policy is None or not policy.hold_promotion:
        return None
    needed = session.scalars(
        sa.select(Job)
        .where(
            Job.id.in_(dependencies.needed(session, job_id)),
            Job.fire_id == row.Fire.id,
            Job.kind.in_(BULK),
            Job.state == JobState.SUCCEEDED,
        )
        .order_by(Job.id)
    )
    for job in needed:
        verdict = fire_profiles.compared(session, job, row.Fire, policy).verdict
        if verdict.drifted:
            due = f"{row.Fire.due:%Y-%m-%dT%H:%M:%SZ}"
            return f"{job.member} of the fire of {due} of {row.name} drifted: {verdict.words}"
    return None


def _current() -> sa.ColumnElement[bool]:
    """The version of a schedule that counts."""
    return sa.and_(
        ScheduleVersion.schedule_id == Schedule.id, ScheduleVersion.version == Schedule.version
    )
