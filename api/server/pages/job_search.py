"""Which jobs the list shows: the filters of the address of the page."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated
from urllib.parse import urlencode

from fastapi import Depends, Query

from jobs import kinds
from jobs.errors import BadRequest
from jobs.queries.job_filters import JobFilter
from jobs.states import JobState

LONGEST = 200

Text = Annotated[str, Query(max_length=LONGEST)]


@dataclass(frozen=True, kw_only=True)
class JobSearch:
    """The filters as they were typed; an empty one leaves all."""

    state: str = ""
    kind: str = ""
    model: str = ""
    text: str = ""
    since: str = ""  # a day in UTC
    until: str = ""  # a day in UTC, itself included
    group: str = ""

    @property
    def wanted(self) -> JobFilter:
        """For the queries. Raises ``BadRequest``."""
        until = _day(self.until, name="until")
        return JobFilter(
            state=JobState(_one_of(self.state, list(JobState), name="state"))
            if self.state
            else None,
            kind=_one_of(self.kind, list(kinds.KINDS), name="kind") if self.kind else None,
            model=self.model.strip() or None,
            text=self.text.strip() or None,
            since=_day(self.since, name="since"),
            before=None if until is None else until + timedelta(days=1),
            group=self.group or None,
        )

    @property
    def fields(self) -> dict[str, str]:
        """Those that are set."""
        return {name: value for name, value in vars(self).items() if value}

    def address(self, path: str = "/", **more: str) -> str:
        """Of the page with these filters, and further fields."""
        fields = {name: value for name, value in {**self.fields, **more}.items() if value}
        return f"{path}?{urlencode(fields)}" if fields else path


def search(
    *,
    state: Text = "",
    kind: Text = "",
    model: Text = "",
    text: Text = "",
    since: Text = "",
    until: Text = "",
    group: Text = "",
) -> JobSearch:
    """From the query of a request."""
    return JobSearch(
        state=state, kind=kind, model=model, text=text, since=since, until=until, group=group
    )


Search = Annotated[JobSearch, Depends(search)]


def _one_of(value: str, known: list[str], *, name: str) -> str:
    if value not in known:
        raise BadRequest(f"{name} must be one of {', '.join(known)}, not {value!r}", param=name)
    return value


def _day(value: str, *, name: str) -> datetime | None:
    if not value:
        return None
    try:
        return datetime.combine(date.fromisoformat(value), time(), tzinfo=UTC)
    except ValueError as error:
        message = f"{name} must be a day such as 2026-11-30, not {value!r}"
        raise BadRequest(message, param=name) from error
