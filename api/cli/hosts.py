"""``nightshift hosts``: the machines that train."""

from __future__ import annotations

from typing import Any

import typer

from api.cli import connection, console, tables
from api.cli.arguments import Json
from api.cli.tables import WHOLE, Column

app = typer.Typer(help="Machines that train.")

COLUMNS = (
    Column("HOST"),
    Column("POOL", cut=1),
    Column("ADDRESS", cut=5),
    Column("DEVICE", cut=3),
    Column("MEMORY", cut=6),
    Column("ALIVE"),
    Column("DOES", cut=2),
    Column("LAST BEAT", cut=4, least=WHOLE),
)


@app.callback()
def hosts() -> None:
    """Machines that train."""


@app.command("list")
def list_hosts(*, json: Json = False, api: connection.Api = None) -> None:
    """Every training host on record, and what it does."""
    with connection.connect(api) as client:
        found = client.hosts()
    tables.listing(found, COLUMNS, _row, json=json)


def _row(host: dict[str, Any]) -> tuple[Any, ...]:
    return (
        host["name"],
        host["pool"],
        host["address"],
        host["device"],
        console.size(host["memory_bytes"]),
        "yes" if host["alive"] else "no",
        _does(host),
        console.moment(host["beat_at"]),
    )


def _does(host: dict[str, object]) -> str:
    if host["job"]:
        return f"run {host['run']} of {host['job']}"
    if host["busy"]:
        return "another project's job"
    return "draining" if host["draining"] else "idle"
