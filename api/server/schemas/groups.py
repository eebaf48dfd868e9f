"""What the API answers about groups of jobs."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, Self

from pydantic import BaseModel

from api.server.schemas.job_relations import JobNeed, JobSchedule
from api.server.schemas.jobs import JobError, Promotion
from jobs.decisions.group_progress import GroupProgress as Progress
from jobs.decisions.group_progress import MemberProgress
from jobs.numbers import finite
from jobs.queries import groups
from jobs.queries.groups import GroupSummary, GroupView, SweepRow
from jobs.queries.jobs import JobView
from jobs.states import JobState


class Amount(BaseModel):
    """Rows or steps; ``total`` is null while it is not known."""

    done: int
    total: int | None


class GroupProgress(BaseModel):
    """One progress for all members: ``share`` is 1 when all have ended."""

    share: float
    ended: int
    jobs: int
    rows: Amount
    steps: Amount
    eta_seconds: float | None  # null: a member waits, or its ETA is not known yet

    @classmethod
    def of(cls, found: Progress) -> Self:
        """The progress of one group."""
        return cls(
            share=found.share,
            ended=found.ended,
            jobs=found.jobs,
            rows=Amount(**vars(found.rows)),
            steps=Amount(**vars(found.steps)),
            eta_seconds=found.eta_seconds,
        )


class GroupMember(BaseModel):
    """A job of a group; the whole job is at `/v1/jobs/{job}`."""

    member: str
    job: str
    kind: str
    name: str | None
    state: JobState
    waiting_reason: str | None
    error: JobError | None
    skipped: str | None  # why it was cancelled: there was nothing for it to do; null: it was not
    depends_on: list[JobNeed]
    model: str | None
    model_pinned: str | None
    registered: str | None  # `name@version` that it trained; null: it has not, or trains none
    promotion: Promotion | None  # null: not decided yet, or none was asked for
    share: float
    rows: Amount | None  # null: it trains
    steps: Amount | None  # null: it is bulk work
    eta_seconds: float | None

    @classmethod
    def of(cls, view: JobView) -> Self:
        """One member."""
        job, progress, output = view.job, groups.progress(view), view.job.output or {}
        promotion = output.get("promotion")
        return cls(
            member=job.member or "",
            job=job.id,
            kind=job.kind,
            name=job.spec.get("name"),
            state=job.state,
            waiting_reason=view.waiting_reason,
            error=JobError.of(job),
            skipped=view.skipped,
            depends_on=[JobNeed.of(need) for need in view.needs],
            model=job.spec.get("model"),
            model_pinned=job.model_pinned,
            registered=output.get("model"),
            promotion=None if promotion is None else Promotion.model_validate(promotion),
            **_amounts(progress),
        )


class Group(BaseModel):
    """Jobs that were submitted together."""

    id: str
    object: Literal["group"] = "group"
    name: str | None
    state: JobState  # running while any member is; at the end the worst of their ends
    created_at: datetime
    swept: list[str] | None  # options that a sweep varies; null: it is no sweep
    schedule: JobSchedule | None  # the fire that submitted it; null: no schedule did
    progress: GroupProgress
    members: list[GroupMember]

    @classmethod
    def of(cls, view: GroupView) -> Self:
        """One group."""
        progress, fire = view.progress, view.members[0].fire
        return cls(
            id=view.group.id,
            name=view.group.name,
            state=progress.state,
            created_at=view.group.created_at,
            swept=view.group.swept,
            schedule=None if fire is None else JobSchedule.of(fire),
            progress=GroupProgress.of(progress),
            members=[GroupMember.of(member) for member in view.members],
        )


class GroupEntry(BaseModel):
    """A group in a listing: how many members are in each state."""

    id: str
    object: Literal["group"] = "group"
    name: str | None
    state: JobState
    created_at: datetime
    swept: list[str] | None
    jobs: dict[JobState, int]

    @classmethod
    def of(cls, found: GroupSummary) -> Self:
        """One entry."""
        group = found.group
        return cls(
            id=group.id,
            name=group.name,
            state=found.state,
            created_at=group.created_at,
            swept=group.swept,
            jobs=dict(found.states),
        )


class GroupPage(BaseModel):
    """Groups, newest first."""

    object: Literal["list"] = "list"
    data: list[GroupEntry]
    has_more: bool
    first_id: str | None
    last_id: str | None

    @classmethod
    def of(cls, found: list[GroupSummary], *, has_more: bool) -> Self:
        """One page."""
        data = [GroupEntry.of(each) for each in found]
        first, last = (data[0].id, data[-1].id) if data else (None, None)
        return cls(data=data, has_more=has_more, first_id=first, last_id=last)


class Measurement(BaseModel):
    """What one member of a group was trained with, and what it measured."""

    member: str
    job: str
    state: JobState
    options: dict[str, Any]  # that the sweep varies, by path
    metrics: dict[str, float | None]  # by split and name, as `validation/macro_f1`
    model: str | None  # `name@version` as registered
    promoted: bool | None  # whether an alias moved to it; null: that was not asked for
    best: bool

    @classmethod
    def of(cls, row: SweepRow) -> Self:
        """One row."""
        job, output = row.view.job, row.view.job.output or {}
        promotion = output.get("promotion")
        return cls(
            member=job.member or "",
            job=job.id,
            state=job.state,
            options=row.options,
            metrics={name: finite(value) for name, value in row.metrics.items()},
            model=output.get("model"),
            promoted=promotion and promotion["promoted"],
            best=row.is_best,
        )


class MeasurementList(BaseModel):
    """The members of a group that train or evaluate, with what they measured."""

    object: Literal["list"] = "list"
    data: list[Measurement]
    has_more: Literal[False] = False


def _amounts(found: MemberProgress) -> dict[str, Any]:
    return {
        "share": found.share,
        "rows": found.rows and Amount(**vars(found.rows)),
        "steps": found.steps and Amount(**vars(found.steps)),
        "eta_seconds": found.eta_seconds,
    }
