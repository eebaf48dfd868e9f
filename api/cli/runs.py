"""``nightshift jobs runs``, ``logs``, ``points``, ``checkpoints``, ``report``: of training jobs."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from api.cli import connection, console, reports, tables
from api.cli.arguments import MOST, Curve, Follow, JobId, Json, Limit
from api.cli.connection import Api
from api.cli.tables import WHOLE, Column, Listing

RUN_COLUMNS = (
    Column("RUN"),
    Column("STATE"),
    Column("FROM STEP", cut=3),
    Column("STEP"),
    Column("HOSTS", cut=2),
    Column("FORMED", cut=4, least=WHOLE),
    Column("ENDED", cut=5, least=WHOLE),
    Column("REASON", cut=1),
)
CHECKPOINT_COLUMNS = (
    Column("STEP"),
    Column("BEST"),
    Column("METRIC"),
    Column("SIZE", cut=2),
    Column("MADE", cut=3, least=WHOLE),
    Column("STATE", cut=1),
)
POINT_COLUMNS = ("NAME", "STEP", "VALUE", Column("RUN", cut=1), Column("AT", cut=2, least=WHOLE))


def add_to(app: typer.Typer) -> None:
    """Put these commands among those of ``nightshift jobs``."""
    for command in (runs, logs, points, checkpoints, report):
        app.command(command.__name__)(command)


def runs(job_id: JobId, *, limit: Limit = 50, json: Json = False, api: Api = None) -> None:
    """A training job's runs, newest first, and why each ended."""
    with connection.connect(api) as client:
        found = Listing.first(client.runs(job_id), limit)
    tables.listing(found, RUN_COLUMNS, _run, json=json)


def logs(
    job_id: JobId,
    *,
    rank: Annotated[int | None, typer.Option(min=0, max=MOST, help="Of one rank.")] = None,
    run: Annotated[int | None, typer.Option(min=1, max=MOST, help="Of one run.")] = None,
    follow: Follow = False,
    json: Json = False,
    api: Api = None,
) -> None:
    """What a training job's processes wrote, in the order in which it came."""
    with connection.connect(api) as client:
        for line in client.logs(job_id, rank=rank, run=run, follow=follow):
            if json:
                console.as_json_line(line)
            else:
                place = f"run {line['run']} rank {line['rank']}"
                console.line(f"{console.moment(line['at'])}  {place}  {line['text']}")


def points(
    job_id: JobId,
    *,
    name: Curve = None,
    json: Json = False,
    api: Api = None,
) -> None:
    """A training job's curves: loss, learning rate, evaluations."""
    with connection.connect(api) as client:
        found = client.last_points(job_id) if name is None else list(client.points(job_id, name))
    tables.listing(found, POINT_COLUMNS, _point, json=json)


def checkpoints(job_id: JobId, *, json: Json = False, api: Api = None) -> None:
    """A training job's checkpoints, newest first."""
    with connection.connect(api) as client:
        found = client.checkpoints(job_id)
    tables.listing(found, CHECKPOINT_COLUMNS, _checkpoint, json=json)


def report(job_id: JobId, *, json: Json = False, api: Api = None) -> None:
    """The evaluation that a training job ended with."""
    with connection.connect(api) as client:
        found, job = client.report(job_id), client.get(job_id)
    if json:
        console.as_json(found)
    else:
        reports.show(job, found)


def _run(run: dict[str, Any]) -> tuple[Any, ...]:
    return (
        run["number"],
        run["state"],
        console.number(run["from_step"]),
        f"{console.number(run['step'])}/{console.number(run['steps_total'])}",
        ", ".join(rank["host"] for rank in run["ranks"]),
        console.moment(run["created_at"]),
        console.moment(run["finished_at"]),
        run["reason"] or run["stop_reason"],
    )


def _checkpoint(checkpoint: dict[str, Any]) -> tuple[Any, ...]:
    return (
        console.number(checkpoint["step"]),
        "best" if checkpoint["best"] else "",
        reports.number(checkpoint["metric"]),
        console.size(checkpoint["bytes"]),
        console.moment(checkpoint["created_at"]),
        _kept(checkpoint),
    )


def _point(point: dict[str, Any]) -> tuple[Any, ...]:
    value = point["value"]
    shown = "not finite" if value is None else f"{value:.6g}"
    return (point["name"], point["step"], shown, point["run"], console.moment(point["at"]))


def _kept(checkpoint: dict[str, Any]) -> str:
    if checkpoint["damaged_at"]:
        return "damaged"
    return "deleted" if checkpoint["deleted_at"] else "kept"
