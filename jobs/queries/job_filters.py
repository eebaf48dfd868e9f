"""Which jobs of a project a listing shows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.lookups import subjects
from jobs.states import JobState
from jobs.tables import Job

COUNTED = 10_000
"""Jobs are counted so far; more are more than anyone pages through."""


@dataclass(frozen=True, kw_only=True)
class JobFilter:
    """Conditions that all hold; ``None``: any."""

    state: JobState | None = None
    kind: str | None = None
    name: str | None = None  # a part of it, in letters of either case
    text: str | None = None  # the beginning of its id, or a part of its name
    model: str | None = None  # a part of its name, in letters of either case
    since: datetime | None = None  # accepted then or later
    before: datetime | None = None  # accepted earlier
    group: str | None = None  # members of it

    def conditions(self) -> Iterator[sa.ColumnElement[bool]]:
        """As SQL; a deleted job is none."""
        yield Job.deleted_at.is_(None)
        if self.state is not None:
            yield Job.state == self.state
        if self.kind is not None:
            yield Job.kind == self.kind
        if self.name is not None:
            yield Job.spec["name"].astext.icontains(self.name, autoescape=True)
        if self.text is not None:
            named = Job.spec["name"].astext.icontains(self.text, autoescape=True)
            yield sa.or_(Job.id.startswith(self.text, autoescape=True), named)
        if self.model is not None:
            yield subjects.model().icontains(self.model, autoescape=True)
        if self.group is not None:
            yield Job.group_id == self.group
        if self.since is not None:
            yield Job.created_at >= self.since
        if self.before is not None:
            yield Job.created_at < self.before


def count(session: Session, *, project_id: str, wanted: JobFilter) -> int | None:
    """How many jobs of the project there are; ``None``: more than ``COUNTED``."""
    found = sa.select(sa.literal(1)).where(Job.project_id == project_id, *wanted.conditions())
    some = found.limit(COUNTED + 1).subquery()
    number = session.scalar(sa.select(sa.func.count()).select_from(some)) or 0
    return number if number <= COUNTED else None
