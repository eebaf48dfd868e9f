"""``nightshift models``: what has been trained, where its aliases point, and why."""

from __future__ import annotations

import itertools
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli import connection, console, out_files, progress_bars, tables
from api.cli.arguments import Alias, Force, Json, Limit, Model, ModelName
from api.cli.failures import Failure
from api.cli.tables import WHOLE, Column, Listing
from api.client import ApiError, Client
from jobs.models import references
from jobs.models.signatures import Signature

app = typer.Typer(help="The registry of models.")

Version = Annotated[str, typer.Argument(metavar="NAME@VERSION", help="One version.")]

NAME_COLUMNS = (
    Column("MODEL"),
    Column("TASK", cut=2),
    Column("KIND", cut=3),
    Column("SIZE", cut=5),
    Column("ALIASES", cut=1),
    Column("CREATED", cut=4, least=WHOLE),
)
VERSION_COLUMNS = (
    Column("VERSION"),
    Column("KIND", cut=3),
    Column("SIZE", cut=5),
    Column("ALIASES", cut=1),
    Column("CREATED", cut=4, least=WHOLE),
    Column("JOB"),
    Column("METRICS", cut=2),
)
HISTORY_COLUMNS = (
    Column("SINCE", least=WHOLE),
    Column("UNTIL", cut=1, least=WHOLE),
    Column("VERSION"),
    Column("BY", cut=2),
    Column("JOB", cut=3),
)
PROMOTION_COLUMNS = (
    Column("AT", cut=3, least=WHOLE),
    Column("ALIAS"),
    Column("MOVED"),
    Column("METRIC", cut=1),
    Column("CANDIDATE"),
    Column("VALUE"),
    Column("INCUMBENT", cut=2),
    Column("VALUE"),
    Column("MARGIN", cut=4),
    Column("ROWS", cut=5),
)


@app.command("list")
def list_models(*, json: Json = False, api: connection.Api = None) -> None:
    """Every name with its newest version."""
    with connection.connect(api) as client:
        found = list(client.models.list())
    if json:
        console.as_json(found)
        return
    names = itertools.groupby((model["nightshift"] for model in found), lambda one: one["name"])
    tables.table(NAME_COLUMNS, [_name_row(list(versions)) for _, versions in names])


@app.command("show")
def show(model: Model, *, json: Json = False, api: connection.Api = None) -> None:
    """One version in full: what it is, how good, and where it comes from."""
    with connection.connect(api) as client:
        found = client.models.get(model)
    if json:
        console.as_json(found)
        return
    version = found["nightshift"]
    for name, value in _facts(version).items():
        console.line(f"{name:<9} {value}")
    for split, report in version["metrics"].items():
        console.line(f"{split:<9} {_numbers(report)}")


@app.command("versions")
def versions(
    name: ModelName,
    *,
    limit: Limit = 50,
    json: Json = False,
    api: connection.Api = None,
) -> None:
    """One name's versions, newest first, deleted ones too."""
    with connection.connect(api) as client:
        found = Listing.first(client.models.versions(name), limit)
    tables.listing(found, VERSION_COLUMNS, _version_row, json=json)


@app.command("alias")
def alias(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="name@version; only the name with --remove.")
    ],
    alias: Alias,
    *,
    remove: Annotated[bool, typer.Option("--remove", help="Forget the alias.")] = False,
    json: Json = False,
    api: connection.Api = None,
) -> None:
    """Let an alias point to a version, or forget it."""
    if remove:
        _name(model)
        with connection.connect(api) as client:
            done = client.models.remove_alias(model, alias)
        console.answer(done, f"{model}@{alias} is forgotten", json=json)
        return
    name, version = _named(model)
    with connection.connect(api) as client:
        done = client.models.set_alias(name, alias, version=version)
    console.answer(done, f"{name}@{alias} is {name}@{version}", json=json)


@app.command("rollback")
def rollback(
    name: ModelName, alias: Alias, *, json: Json = False, api: connection.Api = None
) -> None:
    """Let an alias point to what it pointed to before; again: further back."""
    with connection.connect(api) as client:
        now = _pointed_to(client, name, alias)
        done = client.models.rollback(name, alias, from_version=now)
    before = "nothing" if done["previous"] is None else f"{name}@{done['previous']}"
    passed = "".join(f", past {name}@{version}, which is deleted" for version in done["skipped"])
    text = f"{name}@{alias} is {name}@{done['version']} again; it was {before}{passed}"
    console.answer(done, text, json=json)


@app.command("history")
def history(
    name: ModelName,
    alias: Alias,
    *,
    limit: Limit = 50,
    json: Json = False,
    api: connection.Api = None,
) -> None:
    """Which version an alias pointed to from when until when, newest first."""
    with connection.connect(api) as client:
        found = Listing.first(client.models.history(name, alias), limit)
    tables.listing(found, HISTORY_COLUMNS, _history_row, json=json)


@app.command("download")
def download(
    model: Model,
    *,
    out: Annotated[Path, typer.Option(help="The folder to write; it must not exist yet.")],
    force: Force = False,
    json: Json = False,
    api: connection.Api = None,
) -> None:
    """Fetch a version's files; each is compared with its hash."""
    out_files.check_folder(out, force=force)
    with connection.connect(api) as client, progress_bars.transfer("fetching", out) as progress:
        found = client.models.download(model, out, progress=progress)
    version = found["nightshift"]
    if version["kind"] == "adapter":
        console.note(f"an adapter alone: its base is {version['base']}")
    console.answer(found, f"{found['id']} is in {out}", json=json)


@app.command("delete")
def delete(model: Version, *, json: Json = False, api: connection.Api = None) -> None:
    """Delete a version that no alias, job or adapter uses."""
    name, version = _named(model)
    with connection.connect(api) as client:
        done = client.models.delete(name, version)
    console.answer(done, f"{name}@{version} is deleted", json=json)


@app.command("promotions")
def promotions(
    name: ModelName,
    *,
    limit: Limit = 50,
    json: Json = False,
    api: connection.Api = None,
) -> None:
    """Decisions about a name's aliases, newest first, each with both numbers."""
    with connection.connect(api) as client:
        found = Listing.first(client.models.promotions(name), limit)
    tables.listing(found, PROMOTION_COLUMNS, _promotion_row, json=json)


def _named(model: str) -> tuple[str, int]:
    match = references.REGISTERED.fullmatch(model)
    if match is None or match["version"] is None:
        raise Failure(f"this needs one version, such as news@3, not {model[:60]!r}")
    return match["name"], int(match["version"])


def _name(model: str) -> None:
    if references.NAME.fullmatch(model) is None:
        raise Failure(f"--remove needs the name alone, such as news, not {model[:60]!r}")


def _name_row(versions: list[dict[str, Any]]) -> tuple[Any, ...]:
    newest = versions[0]
    aliases = [f"{alias}={one['version']}" for one in versions for alias in one["aliases"]]
    return (
        f"{newest['name']}@{newest['version']}",
        newest["task"],
        newest["kind"],
        console.size(newest["bytes"]),
        ", ".join(aliases) or None,
        console.moment(newest["created_at"]),
    )


def _version_row(version: dict[str, Any]) -> tuple[Any, ...]:
    gone = version["deleted_at"] is not None
    return (
        version["version"],
        version["kind"],
        "deleted" if gone else console.size(version["bytes"]),
        ", ".join(version["aliases"]) or None,
        console.moment(version["created_at"]),
        version["job_id"],
        _numbers(version["metrics"].get("test") or version["metrics"].get("validation") or {}),
    )


def _pointed_to(client: Client, name: str, alias: str) -> int | None:
    """The version that an alias points to; ``None``: it points nowhere, or there is none."""
    try:
        version: int = client.models.alias(name, alias)["version"]
    except ApiError as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        return None
    return version


def _history_row(service: dict[str, Any]) -> tuple[Any, ...]:
    return (
        console.moment(service["since"]),
        service["until"] and console.moment(service["until"]),
        service["version"],
        service["how"],
        service["job_id"],
    )


def _promotion_row(decision: dict[str, Any]) -> tuple[Any, ...]:
    return (
        console.moment(decision["at"]),
        decision["alias"],
        "yes" if decision["promoted"] else "no",
        decision["metric"],
        decision["version"],
        _number(decision["value"]),
        decision["incumbent"],
        _number(decision["incumbent_value"]),
        f"{decision['margin']:g}",
        decision["rows"],
    )


def _facts(version: dict[str, Any]) -> dict[str, Any]:
    data = version["lineage"].get("data") or {}
    trained = version["signature"] and Signature.model_validate(version["signature"])
    return {
        "model": f"{version['name']}@{version['version']}",
        "aliases": ", ".join(version["aliases"]) or "-",
        "task": version["task"],
        "kind": version["kind"],
        "base": version["base"] or "from scratch",
        "size": console.size(version["bytes"]),
        "sha256": version["sha256"],
        "job": version["job_id"] or "-",
        "trained": trained.words if trained else "-",
        "code": version["lineage"].get("code_version") or "-",
        "created": console.moment(version["created_at"]),
        **{f"  {split}": _words(facts) for split, facts in data.items()},
    }


def _words(facts: Any) -> str:
    """What lineage says of a corpus, without its tables."""
    if not isinstance(facts, dict):
        return str(facts)
    single = {name: value for name, value in facts.items() if isinstance(value, str | int | float)}
    return ", ".join(f"{name} {value}" for name, value in single.items())


def _numbers(report: dict[str, Any]) -> str:
    """The single numbers of a report, without its tables."""
    found = {name: value for name, value in report.items() if isinstance(value, int | float)}
    return ", ".join(f"{name} {_number(value)}" for name, value in found.items()) or "-"


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.6g}"
