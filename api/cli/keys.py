"""``nightshift keys``: what opens the API, and for whom."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from api.cli import arguments, connection, console, tables
from api.cli.arguments import Json, Limit
from api.cli.connection import Api
from api.cli.tables import WHOLE, Column, Listing
from jobs.rights import Scope

app = typer.Typer(help="Keys of projects: what opens the API.")

Answer = dict[str, Any]

KeyId = Annotated[
    str,
    typer.Argument(metavar="KEY", help="The id of a key, `key_...`.", parser=arguments.key),
]
OfProject = Annotated[
    str | None,
    typer.Option(
        "--project",
        metavar="PROJECT",
        help="The project; default: that of your own key. Any other needs the scope `operate`.",
        parser=arguments.project,
    ),
]
ExpiresIn = Annotated[
    str | None,
    typer.Option("--expires-in", metavar="DURATION", help="How long it is valid, such as 90d."),
]

COLUMNS = (
    Column("ID", least=WHOLE),
    Column("NAME", cut=3),
    Column("BEGINS", cut=4),
    Column("SCOPES"),
    Column("STATE"),
    Column("LAST USED", cut=2, least=WHOLE),
    Column("EXPIRES", cut=5, least=WHOLE),
)


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="For people.")] = "",
    *,
    scope: Annotated[
        list[Scope] | None,
        typer.Option(
            "--scope", help="What it may do. May be given several times; default: read and submit."
        ),
    ] = None,
    expires_in: ExpiresIn = None,
    project: OfProject = None,
    json: Json = False,
    api: Api = None,
) -> None:
    """Make a key; it is printed now, and never again."""
    with connection.connect(api) as client:
        made = client.keys.create(
            name,
            scopes=scope or (Scope.READ, Scope.SUBMIT),
            expires_in=expires_in,
            project=project,
        )
    _answer(made, f"{made['id']} acts for {made['project']}: {_scopes(made)}", json=json)


@app.command("list")
def list_keys(
    *, project: OfProject = None, limit: Limit = 50, json: Json = False, api: Api = None
) -> None:
    """Keys, newest first, those that have ended too."""
    with connection.connect(api) as client:
        found = Listing.first(client.keys.list(project=project), limit)
    tables.listing(found, COLUMNS, _row, json=json)


@app.command("current")
def current(*, json: Json = False, api: Api = None) -> None:
    """What your own key may do, and for which project."""
    with connection.connect(api) as client:
        found = client.keys.current()
    console.answer(found, f"{found['id']} acts for {found['project']}: {_scopes(found)}", json=json)


@app.command("show")
def show(key: KeyId, *, json: Json = False, api: Api = None) -> None:
    """One key, in full."""
    with connection.connect(api) as client:
        found = client.keys.get(key)
    if json:
        console.as_json(found)
        return
    tables.facts(_facts(found))


@app.command("rotate")
def rotate(
    key: KeyId,
    *,
    overlap: Annotated[
        str,
        typer.Option(metavar="DURATION", help="How long the old key stays valid; 0 ends it now."),
    ] = "1d",
    expires_in: ExpiresIn = None,
    json: Json = False,
    api: Api = None,
) -> None:
    """Make a key in place of another; it is printed now, and never again."""
    with connection.connect(api) as client:
        made = client.keys.rotate(key, overlap=overlap, expires_in=expires_in)
    _answer(made, f"{made['id']} replaces {key}", json=json)


@app.command("revoke")
def revoke(key: KeyId, *, json: Json = False, api: Api = None) -> None:
    """End a key for good; every server refuses it within a second."""
    with connection.connect(api) as client:
        done = client.keys.revoke(key)
    console.answer(done, f"{key} is revoked", json=json)


def _answer(made: Answer, sentence: str, *, json: bool) -> None:
    """An answer with a key: for people on a line of its own."""
    console.answer(made, sentence, json=json)
    if not json:
        console.line(f"key {made['key']}")


def _scopes(key: Answer) -> str:
    return ", ".join(key["scopes"])


def _row(key: Answer) -> tuple[Any, ...]:
    return (
        key["id"],
        key["name"] or None,
        key["hint"],
        _scopes(key),
        key["state"],
        console.moment(key["last_used_at"]),
        console.moment(key["expires_at"]),
    )


def _facts(key: Answer) -> list[tuple[str, Any]]:
    return [
        ("key", key["id"]),
        ("project", key["project"]),
        ("name", key["name"] or None),
        ("begins with", key["hint"]),
        ("scopes", _scopes(key)),
        ("state", key["state"]),
        ("created", console.moment(key["created_at"])),
        ("by", key["created_by"]),
        ("last used", console.moment(key["last_used_at"])),
        ("expires", console.moment(key["expires_at"])),
        ("revoked", console.moment(key["revoked_at"])),
        ("replaced by", key["replaced_by"]),
    ]
