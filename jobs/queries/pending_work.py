"""What there is for control to do: a turn asks this first, and does only what is wanted."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.lookups import predicates
from jobs.queries import dispatch, failed_rows, gangs
from jobs.states import JobStep
from jobs.tables import Chunk, Fire, Job, Schedule


@dataclass(frozen=True)
class Wanted:
    """Parts of a turn that may find something; the others would find nothing."""

    expire: bool
    settle: bool
    rescue: bool
    judge: bool
    finalize: bool
    steps: bool
    chunks: bool
    training: bool
    schedules: bool


_OF_SCHEDULES = sa.or_(
    sa.exists(Schedule.id).where(Schedule.next_at <= sa.func.now()),
    sa.exists(Fire.id).where(Fire.to_follow),
)

QUESTION = sa.select(
    sa.exists(Job.id).where(predicates.job_expired()).label("expire"),
    sa.exists(Job.id).where(predicates.job_waits()).label("settle"),
    sa.exists(Chunk.id).where(predicates.chunk_lease_expired()).label("rescue"),
    sa.exists(Job.id).where(failed_rows.is_suspect()).label("judge"),
    sa.exists(Job.id).where(dispatch.is_computed()).label("finalize"),
    sa.exists(Job.id).where(sa.or_(*map(predicates.step_claimable, JobStep))).label("steps"),
    sa.exists(Job.id).where(dispatch.has_claimable_chunks()).label("chunks"),
    gangs.any_wanted().label("training"),
    _OF_SCHEDULES.label("schedules"),
)


def look(session: Session) -> Wanted:
    """All of it, in one query."""
    return Wanted(**session.execute(QUESTION).one()._asdict())


def look_at_schedules(session: Session) -> bool:
    """Whether a schedule is due, or something follows from a fire that ended."""
    return bool(session.scalar(sa.select(_OF_SCHEDULES)))
