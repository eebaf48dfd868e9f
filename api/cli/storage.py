"""``nightshift storage``: what is in the object store, and what of it is garbage.

``report`` and ``collect`` are an operator's: they work on the database and the object store
themselves, by the settings in the environment, else on those of the stack of the state folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any

import typer

from api.cli import connection, console, tables, up
from api.cli.arguments import Json
from api.cli.failures import FAILED, UNREACHABLE, Failure
from api.cli.up import Home
from jobs import collector, database, durations, objects
from jobs.collector import Report, Sort
from jobs.database import Sessions
from jobs.objects import ObjectStore
from jobs.queries import storage
from jobs.queries.storage import ChunkTable
from jobs.settings import Settings

app = typer.Typer(help="What is in the object store.")

DATABASE, STORE = ("NIGHTSHIFT_DATABASE_URL", "DATABASE_URL"), "NIGHTSHIFT_OBJECT_STORE_URL"


def _duration(given: str) -> float:
    found = durations.seconds(given)
    if found is None or found < 0:
        raise ValueError(f"must be a duration such as {durations.EXAMPLES}, not {given[:60]!r}")
    return found


Grace = Annotated[
    float | None,
    typer.Option(
        metavar="DURATION",
        parser=_duration,
        help="Only objects that are older than this are garbage. Default: COLLECT_GRACE_SECONDS.",
    ),
]
Unknown = Annotated[
    bool,
    typer.Option(
        "--unknown",
        help="Objects of jobs and files that this database does not know as well. Not where "
        "installations share the store, nor after a backup was restored.",
    ),
]


@dataclass(frozen=True)
class Place:
    """The database and the store of an installation."""

    sessions: Sessions
    store: ObjectStore
    settings: Settings


@app.command("usage")
def usage(*, json: Json = False, api: connection.Api = None) -> None:
    """Objects and bytes of the project by kind, as they were counted last."""
    with connection.connect(api) as client:
        found = client.retention.usage()
    if json:
        console.as_json(found)
        return
    measured = found["measured_at"]
    console.note(f"counted {console.moment(measured)}" if measured else "not counted yet")
    tables.table(
        ("KIND", "OBJECTS", "SIZE"),
        [
            (each["kind"], console.number(each["objects"]), console.size(each["bytes"]))
            for each in found["data"]
        ],
    )


@app.command("report")
def report(
    *,
    grace: Grace = None,
    json: Json = False,
    home: Home = None,
) -> int:
    """Usage and chunks; objects without a row, rows without an object: exit code 1 if any are."""
    with opened(home) as place:
        found = _round(place, grace=grace, dry_run=True, unknown=False)
        collector.find_missing(place.sessions, place.store, found, mark=False)
        with place.sessions.begin() as session:
            chunks = storage.chunk_table(session)
    _show(found, json=json, chunks=chunks)
    return FAILED if found.garbage.objects or found.missing else 0


@app.command("collect")
def collect(
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be removed, and remove nothing.")
    ] = False,
    grace: Grace = None,
    unknown: Unknown = False,
    json: Json = False,
    home: Home = None,
) -> None:
    """Remove objects that no row names; a part that is gone is marked, for `jobs retry`."""
    with opened(home) as place:
        found = _round(place, grace=grace, dry_run=dry_run, unknown=unknown)
        collector.find_missing(place.sessions, place.store, found, mark=not dry_run)
    _show(found, json=json)


def _round(place: Place, *, grace: float | None, dry_run: bool, unknown: bool) -> Report:
    age = place.settings.collect_grace if grace is None else timedelta(seconds=grace)
    found = collector.collect(
        place.sessions, place.store, grace=age, dry_run=dry_run, unknown=unknown
    )
    assert found is not None, "no one breaks it off"
    return found


@contextmanager
def opened(home: Home) -> Iterator[Place]:
    """Of the settings in the environment, or of the stack that runs on a state folder."""
    settings = _settings(home)
    engine = database.connect(settings.database_url, pool_size=2, name="storage")
    try:
        yield Place(database.sessions(engine), objects.connect(settings.object_store_url), settings)
    except database.MAY_PASS as error:
        raise Failure(f"the database does not answer: {error}", code=UNREACHABLE) from error
    finally:
        engine.dispose()


def _settings(home: Home) -> Settings:
    has_database = any(os.environ.get(name) for name in DATABASE)
    if has_database and os.environ.get(STORE):
        return Settings()
    found = up.stack().info(home or connection.home())
    if found is None:
        raise Failure(
            f"set {DATABASE[0]} and {STORE}, as the API has them, or name a stack that runs with "
            "--home"
        )
    return Settings(database_url=found.database_url, object_store_url=found.object_store_url)


def _show(found: Report, *, json: bool, chunks: ChunkTable | None = None) -> None:
    if json:
        shown = _as_dict(found)
        console.as_json(shown if chunks is None else {**shown, "chunks": vars(chunks)})
        return
    tables.table(
        ("PROJECT", "KIND", "OBJECTS", "SIZE"),
        [
            (project, kind, console.number(found.counts[project, kind]), console.size(size))
            for (project, kind), size in sorted(found.usage.items())
        ],
    )
    if chunks is not None:
        console.line(f"chunks as rows: {chunks.rows:,}, {console.size(chunks.bytes)}")
        console.line(
            f"chunks folded: {chunks.folded_chunks:,} of {chunks.folded_jobs:,} jobs, "
            f"{console.size(chunks.folded_bytes)}"
        )
    _sort("objects without a row", found.garbage)
    if found.removed:
        console.line(f"of these {found.removed:,} were removed")
    for fault in found.faults:
        console.note(f"not removed: {fault}")
    _sort("objects of unknown jobs and files", found.unknown)
    console.line(f"rows without an object: {len(found.missing):,}")
    for each in found.missing[: collector.SHOWN]:
        console.line(f"  {each.key} of {each.user}")


def _sort(what: str, found: Sort) -> None:
    console.line(f"{what}: {found.objects:,}, {console.size(found.bytes)}")
    for key in found.keys:
        console.line(f"  {key}")


def _as_dict(found: Report) -> dict[str, Any]:
    return {
        "objects": found.objects,
        "bytes": found.bytes,
        "usage": [
            {
                "project": project,
                "kind": kind,
                "objects": found.counts[project, kind],
                "bytes": size,
            }
            for (project, kind), size in sorted(found.usage.items())
        ],
        "garbage": vars(found.garbage),
        "removed": found.removed,
        "faults": found.faults,
        "unknown": vars(found.unknown),
        "missing": [{"key": each.key, "of": each.user} for each in found.missing],
    }
