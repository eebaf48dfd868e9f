"""``nightshift pools``: what the work of pools wants, and what they have."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from api.cli import connection, console, tables
from api.cli.arguments import Json, Pool
from api.cli.tables import Column

app = typer.Typer(help="Pools of workers and training hosts.")

COLUMNS = (
    Column("POOL"),
    Column("SLOTS"),
    Column("BUSY", cut=2),
    Column("WANTED"),
    Column("FOR DEADLINES", cut=3),
    Column("CHUNKS", cut=1),
    Column("HOSTS", cut=4),
    Column("BUSY HOSTS", cut=6),
    Column("WANTED HOSTS", cut=5),
)

Within = Annotated[
    int | None,
    typer.Option(
        "--drain-seconds",
        metavar="SECONDS",
        min=1,
        max=1_000_000,
        help="Within how many seconds work without a deadline should end; default: ten minutes.",
    ),
]


@app.callback()
def pools() -> None:
    """Pools of workers and training hosts."""


@app.command("list")
def list_pools(
    *, drain_seconds: Within = None, json: Json = False, api: connection.Api = None
) -> None:
    """Every pool that has workers, hosts or work: what it has, and what its work wants."""
    with connection.connect(api) as client:
        found = client.pools(drain_seconds=drain_seconds)
    tables.listing(found, COLUMNS, _row, json=json)


@app.command("demand")
def show_demand(
    pool: Pool,
    *,
    drain_seconds: Within = None,
    json: Json = False,
    api: connection.Api = None,
) -> None:
    """How many slots and hosts the work of a pool wants, by its deadlines."""
    with connection.connect(api) as client:
        found = client.pool_demand(pool, drain_seconds=drain_seconds)
    if json:
        console.as_json(found)
        return
    tables.facts(
        [
            ("slots wanted", found["slots_wanted"]),
            ("for deadlines", found["slots_for_deadlines"]),
            ("slots", f"{found['slots']}, {found['slots_busy']} busy"),
            ("hosts wanted", found["hosts_wanted"]),
            ("hosts", f"{found['hosts']}, {found['hosts_busy']} busy"),
            ("chunks left", f"{found['chunks']:,} of {found['jobs']:,} jobs"),
            ("seconds of one", f"{found['chunk_seconds']:.1f}"),
        ]
    )


def _row(pool: dict[str, Any]) -> tuple[Any, ...]:
    return (
        pool["pool"],
        pool["slots"],
        pool["slots_busy"],
        pool["slots_wanted"],
        pool["slots_for_deadlines"],
        pool["chunks"],
        pool["hosts"],
        pool["hosts_busy"],
        pool["hosts_wanted"],
    )
