"""``nightshift jobs runs``, ``logs``, ``points``, ``checkpoints``, ``report``: of training jobs."""

from __future__ import annotations

import itertools
from typing import Annotated, Any

import typer

from api.cli import connection, console, reports
from api.cli.connection import Api, JobId, Json

Limit = Annotated[int, typer.Option(min=1, help="Most entries.")]


def add_to(app: typer.Typer) -> None:
    """Put these commands among those of ``nightshift jobs``."""
    for command in (runs, logs, points, checkpoints, report):
        app.command(command.__name__)(command)


def runs(job_id: JobId, *, limit: Limit = 50, json: Json = False, api: Api = None) -> None:
    """A training job's runs, newest first, and why each ended."""
    with connection.connect(api) as client:
        found = list(itertools.islice(client.runs(job_id), limit))
    if json:
        console.as_json(found)
        return
    console.table(
        ("RUN", "STATE", "FROM STEP", "STEP", "HOSTS", "FORMED", "ENDED", "REASON"),
        [
            (
                run["number"],
                run["state"],
                console.number(run["from_step"]),
                f"{console.number(run['step'])}/{console.number(run['steps_total'])}",
                ", ".join(rank["host"] for rank in run["ranks"]),
                console.moment(run["created_at"]),
                console.moment(run["finished_at"]),
                run["reason"] or run["stop_reason"],
            )
            for run in found
        ],
    )


def logs(
    job_id: JobId,
    *,
    rank: Annotated[int | None, typer.Option(min=0, help="Of one rank.")] = None,
    run: Annotated[int | None, typer.Option(min=1, help="Of one run.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until it has ended.")] = False,
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
    name: Annotated[
        str | None, typer.Option(help="One curve, such as loss. Default: the newest of each.")
    ] = None,
    json: Json = False,
    api: Api = None,
) -> None:
    """A training job's curves: loss, learning rate, evaluations."""
    with connection.connect(api) as client:
        found = client.last_points(job_id) if name is None else list(client.points(job_id, name))
    if json:
        console.as_json(found)
        return
    columns = ("name", "step", "value", "run", "at")
    console.table([column.upper() for column in columns], [_point(point) for point in found])


def checkpoints(job_id: JobId, *, json: Json = False, api: Api = None) -> None:
    """A training job's checkpoints, newest first."""
    with connection.connect(api) as client:
        found = client.checkpoints(job_id)
    if json:
        console.as_json(found)
        return
    console.table(
        ("STEP", "BEST", "METRIC", "SIZE", "MADE", "STATE"),
        [
            (
                console.number(checkpoint["step"]),
                "best" if checkpoint["best"] else "",
                reports.number(checkpoint["metric"]),
                console.size(checkpoint["bytes"]),
                console.moment(checkpoint["created_at"]),
                _kept(checkpoint),
            )
            for checkpoint in found
        ],
    )


def report(job_id: JobId, *, json: Json = False, api: Api = None) -> None:
    """The evaluation that a training job ended with."""
    with connection.connect(api) as client:
        found, job = client.report(job_id), client.get(job_id)
    if json:
        console.as_json(found)
    else:
        reports.show(job, found)


def _point(point: dict[str, Any]) -> tuple[Any, ...]:
    value = point["value"]
    shown = "not finite" if value is None else f"{value:.6g}"
    return (point["name"], point["step"], shown, point["run"], console.moment(point["at"]))


def _kept(checkpoint: dict[str, Any]) -> str:
    if checkpoint["damaged_at"]:
        return "damaged"
    return "deleted" if checkpoint["deleted_at"] else "kept"
