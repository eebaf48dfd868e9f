"""``nightshift hosts``: the machines that train."""

from __future__ import annotations

import typer

from api.cli import connection, console

app = typer.Typer(help="Machines that train.")


@app.callback()
def hosts() -> None:
    """Machines that train."""


@app.command("list")
def list_hosts(*, json: connection.Json = False, api: connection.Api = None) -> None:
    """Every training host on record, and what it does."""
    with connection.connect(api) as client:
        found = client.hosts()
    if json:
        console.as_json(found)
        return
    console.table(
        ("HOST", "POOL", "ADDRESS", "DEVICE", "MEMORY", "ALIVE", "DOES", "LAST BEAT"),
        [
            (
                host["name"],
                host["pool"],
                host["address"],
                host["device"],
                console.size(host["memory_bytes"]),
                "yes" if host["alive"] else "no",
                _does(host),
                console.moment(host["beat_at"]),
            )
            for host in found
        ],
    )


def _does(host: dict[str, object]) -> str:
    if host["job"]:
        return f"run {host['run']} of {host['job']}"
    if host["busy"]:
        return "another project's job"
    return "draining" if host["draining"] else "idle"
