"""``nightshift workers``: who is there to do the work."""

from __future__ import annotations

from typing import Any

import typer

from api.cli import connection, console, tables
from api.cli.arguments import Json
from api.cli.tables import WHOLE, Column

app = typer.Typer(help="Workers of the installation.")

COLUMNS = (
    Column("WORKER"),
    Column("POOL", cut=1),
    Column("SLOTS", cut=4),
    Column("DEVICE", cut=3),
    Column("ALIVE"),
    Column("LAST BEAT", cut=2, least=WHOLE),
)
REFUSED_COLUMNS = (
    Column("LAST", cut=3, least=WHOLE),
    Column("QUEUE"),
    Column("REASON"),
    Column("WHY", cut=1),
    Column("TIMES", cut=2),
    Column("DEATHS", cut=2),
)
ENGINE_COLUMNS = (
    Column("WORKER"),
    Column("MODEL", cut=1),
    Column("KIND", cut=2),
    Column("ROWS SHARE BATCHES", cut=3),
)


@app.callback()
def workers() -> None:
    """Workers of the installation."""


@app.command("list")
def list_workers(*, json: Json = False, api: connection.Api = None) -> None:
    """Every worker on record, and whether it is alive."""
    with connection.connect(api) as client:
        found = client.workers()
    tables.listing(found, COLUMNS, _row, json=json)
    loaded = [(worker["name"], each) for worker in found for each in worker["engines"]]
    if loaded and not json:
        tables.table(
            ENGINE_COLUMNS,
            [(name, each["model"], each["kind"], each["sharing"]) for name, each in loaded],
        )


@app.command("refused")
def list_refused(*, json: Json = False, api: connection.Api = None) -> None:
    """Messages of the broker that workers refused or died of, and why."""
    with connection.connect(api) as client:
        found = client.refused_messages()
    tables.listing(found, REFUSED_COLUMNS, _refused, json=json)


def _row(worker: dict[str, Any]) -> tuple[Any, ...]:
    return (
        worker["name"],
        worker["pool"],
        worker["slots"],
        worker["device"],
        "yes" if worker["alive"] else "no",
        console.moment(worker["beat_at"]),
    )


def _refused(message: dict[str, Any]) -> tuple[Any, ...]:
    return (
        console.moment(message["last_at"]),
        message["queue"],
        message["reason"],
        message["message"],
        message["times"],
        f"{message['deaths']}{', quarantined' if message['quarantined'] else ''}",
    )
