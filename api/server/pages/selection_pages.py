"""An action on all jobs that a filter leaves: a dry run first, then a few at a time.

The dry run counts, and fixes the moment up to which jobs count. Each request then does as many as
fit into a short time, each job in a transaction of its own, and hands over where it stopped: what
is asked twice is done once, and no request holds a place for long (promise P12).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Annotated

from fastapi import Form, Request, Response

from api.server.dependencies import KeyHash, ProjectId, Shared, Transaction
from api.server.pages import forms, job_pages, page_route, rendering
from api.server.pages.job_search import JobSearch, Search
from jobs import names
from jobs.decisions.job_actions import JobAction, refusal
from jobs.errors import NightshiftError
from jobs.lookups import clock
from jobs.moments import Moment
from jobs.queries import job_selection

router = page_route.router()

SECONDS = 2.0
"""Of work in one request."""

BATCH = 200
SHOWN_REFUSALS = 20


@dataclass(frozen=True)
class DryRun:
    """What an action would do."""

    matching: int
    possible: int
    refused: dict[str, int]  # why -> jobs


@router.get("/selection/{action}")
def dry_run(
    action: JobAction, request: Request, search: Search, session: Transaction, project: ProjectId
) -> Response:
    """How many jobs match, of how many it can be done, and why not of the others."""
    moment = clock.now(session)
    wanted = replace(search.wanted, before=min(search.wanted.before or moment, moment))
    possible, refused = 0, dict[str, int]()
    for facts, number in job_selection.sorts(session, project_id=project, wanted=wanted).items():
        reason = refusal(action, facts)
        if reason is None:
            possible += number
        else:
            refused[reason] = refused.get(reason, 0) + number
    found = DryRun(possible + sum(refused.values()), possible, refused)
    return rendering.page(
        request, "selection.html", action=action, search=search, found=found, moment=moment
    )


@dataclass
class Tally:
    """What was done so far; it travels with the form."""

    done: int = 0
    refused: int = 0
    messages: list[str] = field(default_factory=list)  # of this request


Cursor = Annotated[str, Form(pattern=f"^({names.ID})?$")]
Number = Annotated[int, Form(ge=0, le=10**9)]
Typed = Annotated[str, Form(max_length=200)]


@router.post("/selection/{action}", dependencies=forms.CHECKED)
def go_on(
    *,
    action: JobAction,
    request: Request,
    shared: Shared,
    project: ProjectId,
    key: KeyHash,
    moment: Annotated[Moment, Form()],
    possible: Number,
    state: Typed = "",
    kind: Typed = "",
    model: Typed = "",
    text: Typed = "",
    since: Typed = "",
    until: Typed = "",
    group: Typed = "",
    after: Cursor = "",
    done: Number = 0,
    refused: Number = 0,
) -> Response:
    """Do it to the next jobs behind ``after``, for a short time."""
    search = JobSearch(
        state=state, kind=kind, model=model, text=text, since=since, until=until, group=group
    )
    wanted = replace(search.wanted, before=min(search.wanted.before or moment, moment))
    tally, until_clock = Tally(done, refused), time.monotonic() + SECONDS
    last: str | None = after or None
    while True:
        with shared.sessions.begin() as session:
            found = job_selection.after(
                session, project_id=project, wanted=wanted, limit=BATCH, after=last
            )
        for job in found:
            last = job.id
            if refusal(action, job.facts) is None:
                _do(action, job.id, tally, shared=shared, project=project, key=key)
            if time.monotonic() > until_clock:  # at least one job in each request
                break
        else:
            if len(found) < BATCH:
                last = None
                break
            continue
        break
    return rendering.page(
        request,
        "selection_run.html",
        action=action,
        search=search,
        moment=moment,
        possible=possible,
        tally=tally,
        after=last,
    )


def _do(
    action: JobAction, job_id: str, tally: Tally, *, shared: Shared, project: str, key: str
) -> None:
    try:
        job_pages.do(action, job_id, shared=shared, project_id=project, key=key)
    except NightshiftError as error:
        tally.refused += 1
        if len(tally.messages) < SHOWN_REFUSALS:
            tally.messages.append(f"{job_id}: {error.message}")
    else:
        tally.done += 1
