"""``nightshift workers``: who is there to do the work."""

from __future__ import annotations

import typer

from api.cli import connection, console

app = typer.Typer(help="Workers of the installation.")


@app.callback()
def workers() -> None:
    """Workers of the installation."""


@app.command("list")
def list_workers(*, json: connection.Json = False, api: connection.Api = None) -> None:
    """Every worker on record, and whether it is alive."""
    with connection.connect(api) as client:
        found = client.workers()
    if json:
        console.as_json(found)
        return
    console.table(
        ("WORKER", "POOL", "SLOTS", "DEVICE", "ALIVE", "LAST BEAT"),
        [
            (
                worker["name"],
                worker["pool"],
                worker["slots"],
                worker["device"],
                "yes" if worker["alive"] else "no",
                console.moment(worker["beat_at"]),
            )
            for worker in found
        ],
    )
    loaded = [(worker["name"], each) for worker in found for each in worker["engines"]]
    if loaded:
        console.table(
            ("WORKER", "MODEL", "KIND", "ROWS SHARE BATCHES"),
            [(name, each["model"], each["kind"], each["sharing"]) for name, each in loaded],
        )


@app.command("refused")
def list_refused(*, json: connection.Json = False, api: connection.Api = None) -> None:
    """Messages of the broker that workers refused or died of, and why."""
    with connection.connect(api) as client:
        found = client.refused_messages()
    if json:
        console.as_json(found)
        return
    console.table(
        ("LAST", "QUEUE", "REASON", "WHY", "TIMES", "DEATHS"),
        [
            (
                console.moment(each["last_at"]),
                each["queue"],
                each["reason"],
                each["message"],
                each["times"],
                f"{each['deaths']}{', quarantined' if each['quarantined'] else ''}",
            )
            for each in found
        ],
    )
