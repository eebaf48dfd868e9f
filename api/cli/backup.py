"""``nightshift backup`` and ``restore``: a whole installation, for operators.

Both work on the database and the object store themselves, by the settings in the environment, else
on those of a state folder. They need `pg_dump` and `pg_restore`: those of the embedded servers, or
those in the PATH.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from api.cli import connection, console, storage, up
from api.cli.arguments import Json
from api.cli.failures import FAILED, Failure
from api.cli.storage import DATABASE, STORE
from api.cli.up import Home
from jobs import database, objects
from jobs.database import Sessions
from jobs.objects import ObjectStore

SHOWN = 20
"""Keys that are missing and are named."""


def backup(
    to: Annotated[
        str, typer.Argument(metavar="TO", help="An empty folder, or s3://bucket/prefix.")
    ],
    *,
    home: Home = None,
    json: Json = False,
) -> None:
    """Back up the database and its objects while the installation works."""
    with storage.opened(home) as place:
        from jobs.backups import backup as backups  # noqa: PLC0415 - other commands need none
        from jobs.backups.place import Place  # noqa: PLC0415

        manifest = backups.take(
            place.settings.database_url,
            place.store,
            place.sessions,
            Place(_url(to)),
            programs=_programs(),
            report=console.note,
        )
    if json:
        console.as_json(manifest.model_dump(mode="json"))
        return
    console.line(
        f"backed up as of {manifest.taken_at:%Y-%m-%d %H:%M:%S} UTC: "
        f"{manifest.objects:,} objects, {console.size(manifest.object_bytes)}"
    )


def restore(
    source: Annotated[
        str | None, typer.Argument(metavar="[FROM]", help="Where the backup is.")
    ] = None,
    *,
    adopt: Annotated[
        bool,
        typer.Option(
            "--adopt",
            help="In place of FROM: the database was brought back by other means, such as a "
            "snapshot; end what was under way in it.",
        ),
    ] = False,
    database_only: Annotated[
        bool, typer.Option("--database-only", help="The object store is still there.")
    ] = False,
    home: Home = None,
    json: Json = False,
) -> int:
    """Restore a backup into an empty database, with no process of Nightshift running."""
    if (source is None) != adopt:
        raise Failure("name either the place of a backup or --adopt")
    from jobs.backups import restore as restores  # noqa: PLC0415 - other commands need none
    from jobs.backups.place import Place  # noqa: PLC0415

    with _target(home) as (url, store, sessions):
        if source is None:
            done = restores.adopt(url, store, sessions)
        else:
            done = restores.restore(
                url,
                store,
                sessions,
                Place(_url(source)),
                with_objects=not database_only,
                programs=_programs(),
                report=console.note,
            )
    _show(done, json=json)
    return FAILED if done.missing else 0


def _show(done: Any, *, json: bool) -> None:
    released = done.released
    if json:
        console.as_json(
            {
                "taken_at": done.taken_at,
                "objects": done.objects,
                "released": vars(released),
                "missing": list(done.missing),
            }
        )
        return
    console.line(
        f"given back: {released.chunks:,} chunks, {released.steps:,} steps, {released.runs:,} runs"
    )
    console.line(f"rows without an object: {len(done.missing):,}")
    for key in done.missing[:SHOWN]:
        console.line(f"  {key}")
    if done.missing:
        console.note("`nightshift storage collect` marks parts that are gone, for `jobs retry`")


@contextmanager
def _target(home: Home) -> Iterator[tuple[str, ObjectStore, Sessions]]:
    """Of the settings in the environment, or of a state folder on which no stack runs."""
    if any(os.environ.get(name) for name in DATABASE) and os.environ.get(STORE):
        with storage.opened(home) as place:
            yield place.settings.database_url, place.store, place.sessions
        return
    alone: Any = up.stack("alone")
    with alone.postgres_of(home or connection.home()) as (url, store):
        engine = database.connect(url, pool_size=2, name="restore")
        try:
            yield url, objects.connect(store), database.sessions(engine)
        finally:
            engine.dispose()


def _programs() -> Path | None:
    """Those of the embedded servers, which are newer than most; ``None``: those in the PATH."""
    try:
        found: Path | None = up.stack("postgres").client_programs()
    except Failure:
        return None
    return found


def _url(given: str) -> str:
    """A plain path as a URL."""
    return given if urlsplit(given).scheme else Path(given).expanduser().resolve().as_uri()
