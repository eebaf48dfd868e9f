"""``nightshift audit``: who did what to a project, and from where."""

from __future__ import annotations

import json as json_format
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli import arguments, connection, console, out_files, tables, times
from api.cli.arguments import Force, Json, Limit
from api.cli.connection import Api
from api.cli.tables import WHOLE, Column, Listing

Answer = dict[str, Any]

COLUMNS = (
    Column("AT", least=WHOLE),
    Column("KEY", cut=2),
    Column("FROM", cut=3),
    Column("DID", cut=1, least=WHOLE),
    Column("TO", cut=4),
    Column("STATUS"),
)


def audit(
    *,
    key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Only what this key has done.", parser=arguments.key),
    ] = None,
    about: Annotated[
        str | None,
        typer.Option("--object", metavar="ID", help="Only what was done to this, such as a job."),
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option(
            metavar="TIME|DURATION",
            help="Only from then on: a time, or how long ago it was.",
            parser=times.since,
        ),
    ] = None,
    until: Annotated[
        datetime | None,
        typer.Option(
            metavar="TIME|DURATION",
            help="Only before then: a time, or how long ago it was.",
            parser=times.since,
        ),
    ] = None,
    project: Annotated[
        str | None,
        typer.Option(
            metavar="PROJECT",
            help="The project; default: that of your own key.",
            parser=arguments.project,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write every entry to this file, as JSONL.")
    ] = None,
    force: Force = False,
    limit: Limit = 50,
    json: Json = False,
    api: Api = None,
) -> None:
    """Who did what to a project, and from where, newest first."""
    if out is not None:
        out_files.check(out, force=force)
    with connection.connect(api) as client:
        entries = client.audit(key=key, object=about, since=since, until=until, project=project)
        if out is not None:
            console.line(f"{console.number(_write(entries, out))} entries are in {out}")
            return
        found = Listing.first(entries, limit)
    tables.listing(found, COLUMNS, _row, json=json)


def _write(entries: Iterator[Answer], out: Path) -> int:
    """One entry a line, under another name until the file is whole; how many."""
    part = out.with_name(f"{out.name}.part")
    count = 0
    try:
        with part.open("w", encoding="utf-8") as file:
            for entry in entries:
                file.write(f"{json_format.dumps(entry, ensure_ascii=False)}\n")
                count += 1
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)
    return count


def _row(entry: Answer) -> tuple[Any, ...]:
    return (
        console.moment(entry["at"]),
        entry["key"],
        entry["address"],
        f"{entry['method']} {entry['route']}",
        entry["object"],
        entry["status"],
    )
