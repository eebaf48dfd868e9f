"""``nightshift projects``: the tenants of an installation."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from api.cli import arguments, connection, console, tables
from api.cli.arguments import Json, Limit
from api.cli.connection import Api
from api.cli.failures import Failure
from api.cli.tables import WHOLE, Column, Listing

app = typer.Typer(help="Projects: who shares an installation.")

Answer = dict[str, Any]

Project = Annotated[
    str, typer.Argument(metavar="PROJECT", help="The id of a project.", parser=arguments.project)
]
Name = Annotated[str | None, typer.Option("--name", metavar="TEXT", help="For people.")]
Weight = Annotated[
    float | None,
    typer.Option(
        "--weight", metavar="NUMBER", min=0.001, max=1_000, help="Its share of a busy pool."
    ),
]

MOST_BYTES = 2**62 - 1

COLUMNS = (
    Column("ID", least=WHOLE),
    Column("NAME", cut=1),
    Column("WEIGHT"),
    Column("CREATED", cut=2, least=WHOLE),
)


@app.command("create")
def create(
    project: Project,
    *,
    name: Name = None,
    weight: Weight = None,
    json: Json = False,
    api: Api = None,
) -> None:
    """Make a project; `nightshift keys create --project` makes its first key."""
    with connection.connect(api) as client:
        made = client.projects.create(project, name=name or "", weight=weight or 1.0)
    console.answer(
        made,
        f"{project} is made; its first key: `nightshift keys create --project {project}`",
        json=json,
    )


@app.command("list")
def list_projects(*, limit: Limit = 50, json: Json = False, api: Api = None) -> None:
    """Every project, by id."""
    with connection.connect(api) as client:
        found = Listing.first(client.projects.list(), limit)
    tables.listing(found, COLUMNS, _row, json=json)


@app.command("show")
def show(project: Project, *, json: Json = False, api: Api = None) -> None:
    """One project, in full."""
    with connection.connect(api) as client:
        found = client.projects.get(project)
    if json:
        console.as_json(found)
        return
    tables.facts(_facts(found))


@app.command("edit")
def edit(
    project: Project,
    *,
    name: Name = None,
    weight: Weight = None,
    jobs_in_flight: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, max=2**31, help="Most jobs that have not ended."),
    ] = None,
    upload_bytes: Annotated[
        int | None, typer.Option(metavar="N", min=0, max=MOST_BYTES, help="Of one uploaded file.")
    ] = None,
    storage_bytes: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, max=MOST_BYTES, help="In the object store, in all."),
    ] = None,
    pool: Annotated[
        list[str] | None,
        typer.Option(
            "--pool",
            metavar="POOL",
            help="A pool that its jobs may use. May be given several times.",
            parser=arguments.pool,
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="PREFIX",
            help="What references of models may begin with, such as hf:org/. May be given several "
            "times.",
        ),
    ] = None,
    no_limits: Annotated[
        bool, typer.Option("--no-limits", help="Lift every limit that is not given.")
    ] = False,
    json: Json = False,
    api: Api = None,
) -> None:
    """Change what is given."""
    limits = {
        "jobs_in_flight": jobs_in_flight,
        "upload_bytes": upload_bytes,
        "storage_bytes": storage_bytes,
        "pools": pool or None,
        "models": model or None,
    }
    given = {field: value for field, value in limits.items() if value is not None}
    if name is None and weight is None and not given and not no_limits:
        raise Failure("nothing is changed: give --name, --weight or a limit")
    with connection.connect(api) as client:
        if given and not no_limits:
            given = {**client.projects.get(project)["limits"], **given}
        change = given if given or no_limits else None
        found = client.projects.edit(project, name=name, weight=weight, limits=change)
    console.answer(found, f"{project} is changed", json=json)


def _row(project: Answer) -> tuple[Any, ...]:
    return (
        project["id"],
        project["name"] or None,
        f"{project['weight']:g}",
        console.moment(project["created_at"]),
    )


def _facts(project: Answer) -> list[tuple[str, Any]]:
    return [
        ("project", project["id"]),
        ("name", project["name"] or None),
        ("weight", f"{project['weight']:g}"),
        ("limits", _limits(project) or None),
        ("created", console.moment(project["created_at"])),
    ]


def _limits(project: Answer) -> str:
    given = {name: value for name, value in project["limits"].items() if value is not None}
    return ", ".join(f"{name} {value}" for name, value in given.items())
