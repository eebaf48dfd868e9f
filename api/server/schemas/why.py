"""Why a job does not move, how it moves, or how it ended; and where its time went."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel

from jobs.decisions import why
from jobs.decisions.time_spent import TimePart
from jobs.decisions.why import JobSnapshot
from jobs.states import JobState


class Finding(BaseModel):
    """What is so, and what to do next."""

    cause: str
    sentence: str
    advice: str
    command: str


class TimeFinding(BaseModel):
    """A part of the job's time, and what makes it shorter."""

    part: TimePart
    seconds: float
    sentence: str
    advice: str
    command: str


class Why(BaseModel):
    """One job, explained."""

    object: Literal["why"] = "why"
    job: str
    state: JobState
    moves: bool  # it has not ended, and nothing stands in its way
    findings: list[Finding]  # the first obstacle first
    seconds: float  # since it was accepted, to its end or to now
    time: list[TimeFinding]  # they add up to ``seconds``

    @classmethod
    def of(cls, job: JobSnapshot) -> Self:
        """The job as it is."""
        found = why.explain(job)
        return cls(
            job=job.job_id,
            state=job.state,
            moves=found.moves,
            findings=[Finding(**vars(each)) for each in found.findings],
            seconds=sum(part.seconds for part in found.time),
            time=[TimeFinding(**vars(each)) for each in found.time],
        )
