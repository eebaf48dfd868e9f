"""Groups as their owners see them: members, states, one progress, and the metrics of a sweep."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs import kinds
from jobs.decisions import group_progress, sweep_table
from jobs.decisions.group_progress import Amount, GroupProgress, MemberProgress
from jobs.decisions.sweep_table import Measured
from jobs.errors import NotFound
from jobs.kinds import FinetuneSpec
from jobs.kinds import groups as group_specs
from jobs.queries import jobs, paging
from jobs.queries.jobs import JobView
from jobs.queries.paging import Order
from jobs.states import JobState
from jobs.tables import Job, JobGroup


@dataclass(frozen=True)
class GroupView:
    """A group with its members in the order in which they were written; deleted ones are gone."""

    group: JobGroup
    members: list[JobView]

    @property
    def progress(self) -> GroupProgress:
        """Of all members together."""
        return group_progress.sum_up([progress(view) for view in self.members])


@dataclass(frozen=True)
class GroupSummary:
    """A group in a listing: how many members are in which state."""

    group: JobGroup
    members: Mapping[tuple[JobState, bool], int]  # by state, and whether they were skipped

    @property
    def states(self) -> Mapping[JobState, int]:
        """How many members are in which state."""
        found: Counter[JobState] = Counter()
        for (state, _), count in self.members.items():
            found[state] += count
        return found

    @property
    def state(self) -> JobState:
        """Of the group."""
        return group_progress.state_of(group_progress.deciding(self.members))


@dataclass(frozen=True)
class SweepRow:
    """One member that trains or evaluates."""

    view: JobView
    options: dict[str, Any]  # of the swept ones, by path
    metrics: dict[str, float]  # by split and name
    is_best: bool


def get(session: Session, group_id: str, *, project_id: str) -> GroupView:
    """The group. Raises ``NotFound``, for another project's or one without members too."""
    group = session.scalar(
        sa.select(JobGroup).where(JobGroup.id == group_id, JobGroup.project_id == project_id)
    )
    members = [] if group is None else jobs.of_group(session, group.id)
    if group is None or not members:
        raise NotFound(f"no group {group_id!r} in this project")
    places = {name: place for place, name in enumerate(group.members)}
    return GroupView(group, sorted(members, key=lambda view: places[view.job.member or ""]))


def page(
    session: Session,
    *,
    project_id: str,
    limit: int,
    after: str | None = None,
    order: Order = Order.DESC,
) -> tuple[list[GroupSummary], bool]:
    """Groups by age, beginning behind the group ``after``; and whether there are more."""
    live = sa.select(Job.id).where(Job.group_id == JobGroup.id, Job.deleted_at.is_(None))
    query = sa.select(JobGroup).where(JobGroup.project_id == project_id, live.exists())
    place = None if after is None else _place(session, after, project_id=project_id)
    query = paging.sort(query, JobGroup.created_at, JobGroup.id, order=order, after=place)
    groups, more = paging.page(session, query, limit=limit)
    states = _states(session, [group.id for group in groups])
    return [GroupSummary(group, states[group.id]) for group in groups], more


def sweep(view: GroupView) -> list[SweepRow]:
    """The members that train or evaluate, with what they measured, and the best one marked."""
    ours = [each for each in view.members if each.training is not None]
    best = sweep_table.best([_measured(each) for each in ours])
    swept = view.group.swept or ()
    return [
        SweepRow(
            view=each,
            options={path: group_specs.option(each.job.spec, path) for path in swept},
            metrics=_metrics(each),
            is_best=place == best,
        )
        for place, each in enumerate(ours)
    ]


def progress(view: JobView) -> MemberProgress:
    """How far one member is."""
    state, eta = view.job.state, view.eta_seconds
    if view.training is None:
        rows = Amount(view.counts.rows_done, view.job.rows_total)
        return MemberProgress(state, rows=rows, eta_seconds=eta, skipped=view.skipped is not None)
    newest = view.training.newest
    steps = Amount(view.training.step, newest.run.steps_total if newest else None)
    return MemberProgress(state, steps=steps, eta_seconds=eta, skipped=view.skipped is not None)


def _place(session: Session, group_id: str, *, project_id: str) -> Sequence[object]:
    query = sa.select(JobGroup.created_at, JobGroup.id)
    place = session.execute(
        query.where(JobGroup.id == group_id, JobGroup.project_id == project_id)
    ).one_or_none()
    if place is None:
        raise NotFound(f"no group {group_id!r} in this project to list after", param="after")
    return place


def _states(
    session: Session, group_ids: Sequence[str]
) -> dict[str, Counter[tuple[JobState, bool]]]:
    """How many members are in which state, and whether they were skipped; by group."""
    reason = Job.skipped.is_not(None)
    rows = session.execute(
        sa.select(Job.group_id, Job.state, reason, sa.func.count())
        .where(Job.group_id.in_(group_ids), Job.deleted_at.is_(None))
        .group_by(Job.group_id, Job.state, reason)
    )
    found: dict[str, Counter[tuple[JobState, bool]]] = {each: Counter() for each in group_ids}
    for group_id, state, has_reason, count in rows:
        skipped = has_reason and state is JobState.CANCELLED
        found[str(group_id)][state, skipped] += count
    return found


def _metrics(view: JobView) -> dict[str, float]:
    """Of the report it ended with; while it trains, of its last evaluation."""
    report = (view.job.output or {}).get("report")
    if report:
        return sweep_table.flat(report)
    assert view.training is not None
    return sweep_table.flat({"validation": view.training.evaluation})


def _measured(view: JobView) -> Measured:
    """What promotion compares, where it was asked for; else the metric of the recipe."""
    promoted = (view.job.output or {}).get("promotion")
    if promoted:
        return Measured(promoted["metric"], promoted["value"])
    spec = kinds.parse(view.job.spec)
    if not isinstance(spec, FinetuneSpec) or view.job.state is not JobState.SUCCEEDED:
        return Measured("", None)
    return Measured(spec.metric, _metrics(view).get(f"validation/{spec.metric}"))
