"""Schedules: words for their timing, next fires, past fires."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import Request, Response
from starlette.responses import RedirectResponse

from api.server.dependencies import After, ProjectId, ScheduleKey, Shared, Transaction
from api.server.pages import forms, page_route, rendering
from api.server.routes import schedules
from api.server.schemas.schedules import Fire, NextFire
from jobs.lookups import clock

router = page_route.router()

PAGE_SCHEDULES = 50
NEXT_FIRES, PAST_FIRES = 5, 30


@router.get("/schedules")
def list_schedules(
    request: Request, session: Transaction, project: ProjectId, after: After = None
) -> Response:
    """Every schedule, newest first, with its last fires."""
    page = schedules.list_schedules(
        session=session, project=project, limit=PAGE_SCHEDULES, after=after
    )
    past = {each.id: _past(each.id, session, project) for each in page.data}
    return rendering.page(request, "schedules.html", page=page, past=past, now=clock.now(session))


@router.get("/schedules/{schedule}")
def show_schedule(
    schedule: ScheduleKey, request: Request, session: Transaction, project: ProjectId
) -> Response:
    """One schedule."""
    found = schedules.get_schedule(schedule, session, project)
    coming: list[NextFire] = []
    if found.words is not None and found.state != "ended":
        coming = schedules.preview_schedule(
            schedule, session=session, project=project, limit=NEXT_FIRES
        ).data
    return rendering.page(
        request,
        "schedule.html",
        schedule=found,
        coming=coming,
        past=_past(schedule, session, project),
        now=clock.now(session),
    )


@router.post("/schedules/{schedule}/pause", dependencies=forms.CHECKED)
def pause(schedule: ScheduleKey, session: Transaction, project: ProjectId) -> Response:
    """Let nothing go until it is resumed."""
    schedules.pause_schedule(schedule, session, project)
    return _back(schedule)


@router.post("/schedules/{schedule}/resume", dependencies=forms.CHECKED)
def resume(
    schedule: ScheduleKey, session: Transaction, project: ProjectId, shared: Shared
) -> Response:
    """Go on with the next fire time."""
    schedules.resume_schedule(schedule, session=session, project=project, shared=shared)
    return _back(schedule)


@router.post("/schedules/{schedule}/trigger", dependencies=forms.CHECKED)
def trigger(
    schedule: ScheduleKey, session: Transaction, project: ProjectId, shared: Shared
) -> Response:
    """Fire now."""
    schedules.trigger_schedule(
        schedule, session=session, project=project, shared=shared, counted=None
    )
    return _back(schedule)


def _past(schedule: str, session: Transaction, project: str) -> list[Fire]:
    page = schedules.list_fires(schedule, session=session, project=project, limit=PAST_FIRES)
    return page.data


def _back(schedule: str) -> Response:
    return RedirectResponse(f"/schedules/{schedule}", status_code=HTTPStatus.SEE_OTHER)
