"""``nightshift groups``: jobs that are submitted together, and the table of a sweep."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli import (
    arguments,
    connection,
    console,
    corpus_arguments,
    group_outcomes,
    group_progress,
    progress_bars,
    recipes,
    reports,
    tables,
)
from api.cli.arguments import Json, Limit
from api.cli.connection import Api
from api.cli.option_names import OptionNames
from api.cli.tables import WHOLE, Column, Listing
from api.client import ApiError, Client
from jobs.kinds.groups import GroupSpec

app = typer.Typer(help="Jobs that are submitted together: chains, and sweeps.")

Group = dict[str, Any]

MEMBERS = ("jobs.", "sweep.")
"""How the path of a field of a member begins."""

COLUMNS = (
    Column("GROUP"),
    Column("STATE"),
    Column("JOBS", cut=1),
    Column("NAME", cut=2, least=10),
    Column("CREATED", cut=3, least=WHOLE),
)


@app.command("create")
def create(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The group as JSON or YAML.")],
    *,
    watch: arguments.Watch = None,
    json: Json = False,
    idempotency_key: arguments.IdempotencyKey = None,
    api: Api = None,
) -> None:
    """Submit the jobs of a file: all of them or none. Local files that it names are uploaded."""
    written = recipes.whole(file)
    with OptionNames({}).spoken():
        GroupSpec.model_validate(written)
        submit(written, watch=watch, json=json, idempotency_key=idempotency_key, api=api)


@app.command("list")
def list_groups(*, limit: Limit = 20, json: Json = False, api: Api = None) -> None:
    """Groups, newest first."""
    with connection.connect(api) as client:
        found = Listing.first(client.groups.list(), limit)
    tables.listing(found, COLUMNS, _row, json=json)


@app.command("show")
def show(group_id: arguments.GroupId, *, json: Json = False, api: Api = None) -> None:
    """One group: its jobs, and what is done of all together."""
    with connection.connect(api) as client:
        group = client.groups.get(group_id)
    if json:
        console.as_json(group)
    else:
        group_progress.summary(group)


@app.command("metrics")
def metrics(group_id: arguments.GroupId, *, json: Json = False, api: Api = None) -> None:
    """What the jobs of a sweep have measured, side by side."""
    with connection.connect(api) as client:
        found = client.groups.metrics(group_id)
    if json:
        console.as_json(found)
    else:
        show_metrics(found)


def submit(
    spec: Mapping[str, Any],
    *,
    watch: bool | None,
    json: bool,
    idempotency_key: str | None,
    api: str | None,
) -> None:
    """Upload what the spec names, submit it, and show its progress where that is wanted."""
    with connection.connect(api) as client:
        whole = uploaded(client, spec, reuse=idempotency_key is not None)
        with members_named():
            group = client.groups.submit(whole, idempotency_key=idempotency_key)
        with progress_bars.leaving(group["id"]):
            if progress_bars.is_wanted(watch):
                console.note(f"{group['id']} submitted: {len(group['members'])} jobs")
                deliver(client, group_progress.watch(client, group["id"]), json=json)
            else:
                console.answer(group, group["id"], json=json)


def deliver(client: Client, group: Group, *, json: bool) -> None:
    """Show a group that has ended, and the table of a sweep; raises as its outcome asks for."""
    measured = client.groups.metrics(group["id"]) if group["swept"] else None
    if json:
        told = group_outcomes.told(group)
        console.as_json(told if measured is None else {**told, "metrics": measured})
    else:
        group_progress.summary(group)
        if measured:
            console.line()
            show_metrics(measured)
    group_outcomes.check(group)


def show_metrics(found: list[Group]) -> None:
    """The table of a sweep: its options, metrics, and the best."""
    options = list(dict.fromkeys(path for each in found for path in each["options"]))
    measured = list(dict.fromkeys(name for each in found for name in each["metrics"]))
    shown = [name for name in measured if name.partition("/")[2] in reports.METRICS]
    columns = (
        Column("MEMBER"),
        *(Column(path.rpartition(".")[2].upper()) for path in options),
        Column("STATE", cut=1),
        *(Column(_title(name), cut=2 + place) for place, name in enumerate(shown)),
        Column("MODEL", cut=1),
        Column(""),
    )
    tables.table(columns, [_measured(each, options, shown) for each in found])


def _measured(each: Group, options: list[str], shown: list[str]) -> tuple[Any, ...]:
    marks = ("best" * each["best"], "promoted" * bool(each["promoted"]))
    return (
        each["member"],
        *(each["options"].get(path) for path in options),
        each["state"],
        *(reports.number(each["metrics"].get(name)) for name in shown),
        each["model"],
        ", ".join(filter(None, marks)),
    )


def _title(name: str) -> str:
    split, _, metric = name.partition("/")
    return f"{split[:5]} {reports.METRICS[metric]}".upper()


def _row(entry: Group) -> tuple[Any, ...]:
    return (
        entry["id"],
        entry["state"],
        ", ".join(f"{count} {state}" for state, count in entry["jobs"].items()),
        entry["name"],
        console.moment(entry["created_at"]),
    )


@contextmanager
def members_named() -> Iterator[None]:
    """Let a refusal say which member of a group it is about."""
    try:
        yield
    except ApiError as error:
        path = error.param or ""
        if path.startswith(MEMBERS) and not error.message.startswith(path):
            error.message = f"{path}: {error.message}"
        raise


def uploaded(client: Client, spec: Mapping[str, Any], *, reuse: bool) -> Any:
    """The spec with the ids of uploads in the place of local files."""
    whole = copy.deepcopy(dict(spec))
    named = [(corpus, corpus["file"]) for corpus in _local(whole)]
    for corpus, _ in named:
        corpus["file"] = corpus_arguments.TO_BE_UPLOADED
    corpus_arguments.upload(client, named, reuse=reuse)
    return whole


def _local(value: Any) -> Iterator[dict[str, Any]]:
    """Every corpus in a spec that is a file on this machine."""
    if isinstance(value, dict):
        file = value.get("file")
        if isinstance(file, str) and Path(file).is_file():
            yield value
        for inner in value.values():
            yield from _local(inner)
