"""Which objects the other jobs of a schedule have taken."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from jobs.kinds import Since
from jobs.states import FINAL, JobState
from jobs.tables import Fire, Job, JobInput, ModelAlias, ModelVersion, Promotion

UNDER_WAY = frozenset(JobState) - FINAL


def schedule(session: Session, job_id: str) -> str | None:
    """The schedule that submitted the job; ``None``: a user did."""
    return session.scalar(
        sa.select(Fire.schedule_id).join(Job, Job.fire_id == Fire.id).where(Job.id == job_id)
    )


@dataclass(frozen=True)
class Window:
    """The bounds of a job's rows of a SQL source, as far as other jobs and its fire set them."""

    begins: str | None  # where the last one that counts has ended; None: there is none
    ends: datetime  # the fire time, or when the job was accepted


def window(session: Session, job_id: str, *, split: str, name: str, since: Since | None) -> Window:
    """The window of a SQL source of this name."""
    ends = session.execute(
        sa.select(sa.func.coalesce(Fire.due, Job.created_at))
        .select_from(Job)
        .outerjoin(Fire, Fire.id == Job.fire_id)
        .where(Job.id == job_id)
    ).scalar_one()
    if since is None:
        return Window(None, ends)
    mine = _own_fire(job_id)
    begins = session.scalar(
        sa.select(JobInput.query["next"].as_string())
        .join(Job, Job.id == JobInput.job_id)
        .join(Fire, Fire.id == Job.fire_id)
        .join(mine, _earlier_like(mine))
        .where(
            JobInput.split == split,
            JobInput.name == name,
            JobInput.query.is_not(None),
            _has_succeeded(job_id, since),
        )
        .order_by(Job.planned_at.desc(), Job.id.desc())
        .limit(1)
    )
    return Window(begins, ends)


def taken(
    session: Session, job_id: str, *, split: str, since: Since, names: Collection[str]
) -> set[tuple[str, str]]:
    """Of the objects with these names those that are not new to this job: name and version.

    Jobs of its like in other fires of the schedule have taken them; those that are under way count,
    so that two at a time take none twice.
    """
    mine = _own_fire(job_id)
    rows = session.execute(
        sa.select(JobInput.name, JobInput.version)
        .join(Job, Job.id == JobInput.job_id)
        .join(Fire, Fire.id == Job.fire_id)
        .join(mine, _earlier_like(mine))
        .where(
            JobInput.split == split,
            JobInput.name.in_(names),
            sa.or_(Job.state.in_(UNDER_WAY), _has_succeeded(job_id, since)),
        )
    )
    return {(name, version) for name, version in rows}


def _has_succeeded(job_id: str, since: Since) -> sa.ColumnElement[bool]:
    """Jobs whose rows are not taken again: all that succeeded, or those in the champion."""
    succeeded = Job.state == JobState.SUCCEEDED
    if since is Since.LAST_SUCCESS:
        return succeeded
    champion = _champion(job_id)
    promoted = (
        sa.select(Promotion.id)
        .join(
            champion,
            sa.and_(Promotion.name == champion.c.name, Promotion.alias == champion.c.alias),
        )
        .where(
            Promotion.job_id == Job.id,
            Promotion.promoted,
            Promotion.version <= champion.c.version,
        )
        .correlate(Job)
    )
    trained = sa.select(champion.c.job_id).where(champion.c.job_id == Job.id).correlate(Job)
    return sa.and_(succeeded, sa.or_(trained.exists(), promoted.exists()))


def _champion(job_id: str) -> sa.Subquery:
    """The version that the job's `promote.alias` points to; none where it points nowhere."""
    own = aliased(Job)
    return (
        sa.select(ModelVersion.name, ModelVersion.version, ModelVersion.job_id, ModelAlias.alias)
        .join(
            ModelAlias,
            sa.and_(
                ModelAlias.project_id == ModelVersion.project_id,
                ModelAlias.name == ModelVersion.name,
                ModelAlias.version == ModelVersion.version,
            ),
        )
        .join(
            own,
            sa.and_(
                own.project_id == ModelAlias.project_id,
                own.spec["model"].as_string() == ModelAlias.name,
                own.spec["promote"]["alias"].as_string() == ModelAlias.alias,
            ),
        )
        .where(own.id == job_id)
        .subquery()
    )


def _own_fire(job_id: str) -> sa.Subquery:
    return (
        sa.select(Fire.id, Fire.schedule_id, Job.member, Job.kind)
        .join(Job, Job.fire_id == Fire.id)
        .where(Job.id == job_id)
        .subquery()
    )


def _earlier_like(mine: sa.Subquery) -> sa.ColumnElement[bool]:
    """Jobs of other fires of the schedule with the name of this one in their groups.

    Between an only job, which has no name, and a member the kind decides: the schedule was edited.
    """
    one_is_only = sa.or_(Job.member.is_(None), mine.c.member.is_(None))
    return sa.and_(
        mine.c.schedule_id == Fire.schedule_id,
        mine.c.id != Fire.id,
        sa.or_(Job.member == mine.c.member, sa.and_(one_is_only, Job.kind == mine.c.kind)),
    )
