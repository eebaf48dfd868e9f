"""What a job has to do with others: jobs that it needs, and the schedule that submitted it."""

from __future__ import annotations

from datetime import datetime
from typing import Self

from pydantic import BaseModel

from jobs.decisions.dependencies import DependencyOn, Need
from jobs.queries.fires import FireOfJob
from jobs.schedules.states import FireOrigin
from jobs.states import JobState


class JobNeed(BaseModel):
    """A job that another one depends on, and its state."""

    job: str
    name: str | None
    on: DependencyOn
    state: JobState

    @classmethod
    def of(cls, need: Need) -> Self:
        """One dependency."""
        return cls(job=need.job_id, name=need.name, on=need.on, state=need.state)


class JobSchedule(BaseModel):
    """The fire of a schedule that submitted a job."""

    id: str  # of the schedule, which may have been deleted since
    name: str
    fire_time: datetime
    local_time: str  # the same in the zone of the schedule
    origin: FireOrigin

    @classmethod
    def of(cls, fire: FireOfJob) -> Self:
        """The fire of one job."""
        return cls(
            id=fire.schedule_id,
            name=fire.name,
            fire_time=fire.due,
            local_time=fire.local,
            origin=fire.origin,
        )
