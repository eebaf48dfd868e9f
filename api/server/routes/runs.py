"""What a training job does and did: its runs, checkpoints, curves, logs, and its report."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from api.server import downloads, schemas
from api.server.dependencies import ByAge, Limit, Shared, Training, Transaction
from jobs.errors import NotFound
from jobs.lookups import clock
from jobs.queries import checkpoints, curves, logs, runs
from jobs.queries.paging import Order
from jobs.states import FINAL

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["training"])

Cursor = Annotated[int | None, Query(ge=0, le=2**62, description="The `next` of the page before.")]
CurveName = Annotated[
    str | None,
    Query(min_length=1, max_length=200, description="One curve; without: the newest of each."),
]
RankNumber = Annotated[int | None, Query(ge=0, le=2**31 - 1, description="Lines of one rank.")]
RunNumber = Annotated[int | None, Query(ge=1, le=2**31 - 1, description="Lines of one run.")]


@router.get("/runs")
def list_runs(
    *,
    view: Training,
    session: Transaction,
    limit: Limit = 20,
    after: Cursor = None,
    order: ByAge = Order.DESC,
) -> schemas.RunPage:
    """The job's runs with their ranks, newest first."""
    found, more = runs.page(session, view.job.id, limit=limit, after=after, order=order)
    shown = [schemas.Run.of(run) for run in found]
    last = shown[-1].number if shown else after
    return schemas.RunPage(data=shown, has_more=more, next=last)


@router.get("/checkpoints")
def list_checkpoints(view: Training, session: Transaction) -> schemas.CheckpointList:
    """Every checkpoint that was ever complete, newest first."""
    found = checkpoints.listing(session, view.job.id)
    return schemas.CheckpointList(data=[schemas.Checkpoint.of(each) for each in found])


@router.get("/points")
def list_points(
    view: Training,
    session: Transaction,
    name: CurveName = None,
    after: Cursor = None,
    limit: Limit = 1000,
) -> schemas.PointPage:
    """One curve in the order of its steps; without a name the newest point of every curve."""
    if name is None:
        assert view.training is not None
        newest = [schemas.Point.of(point) for point in view.training.last]
        return schemas.PointPage(data=newest, has_more=False, next=None)
    begin = -1 if after is None else after
    found, more = curves.page(session, view.job.id, name=name, after=begin, limit=limit)
    shown = [schemas.Point.of(point) for point in found]
    last = shown[-1].step if shown else after
    return schemas.PointPage(data=shown, has_more=more, next=last)


@router.get("/logs")
def list_log_lines(
    view: Training,
    session: Transaction,
    *,
    rank: RankNumber = None,
    run: RunNumber = None,
    after: Cursor = None,
    limit: Limit = 1000,
) -> schemas.LogPage:
    """What its ranks' processes wrote, in the order in which it came, a second later."""
    found = logs.page(session, view.job.id, limit=limit, after=after or 0, rank=rank, run=run)
    over = logs.is_over(view.job.finished_at, now=clock.now(session))
    return schemas.LogPage(
        data=[schemas.LogLine.of(line) for line in found.lines],
        has_more=found.more,
        next=found.lines[-1].id if found.lines else after,
        complete=over and not found.more,
    )


@router.get(
    "/report",
    response_model=None,
    responses={206: downloads.responses("application/json")[206]},
)
def get_report(view: Training, request: Request, shared: Shared) -> dict[str, Any] | Response:
    """The evaluation that a job ended with, by split; a large one comes as it is stored."""
    job = view.job
    if not job.output or not job.output.get("report"):
        raise NotFound(
            f"{job.id} is {job.state} and has no report"
            + ("; wait until it has ended" if job.state not in FINAL else ""),
            code="report_not_ready",
        )
    whole = job.output.get("report_object")
    if whole is None:
        report: dict[str, Any] = job.output["report"]
        return report
    return downloads.stored(
        shared.store,
        whole["key"],
        request=request,
        what=f"the report of {job.id}",
        size=whole["bytes"],
        sha256=whole["sha256"],
        media_type="application/json",
        disposition="inline",
    )
