"""Restores a backup: rows, then the objects that they name, then an end to all that was under way.

What broke off is repeated: a table ``unfinished_restore`` stays to the end and names the backup.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs import collector, database
from jobs.backups import dump, place
from jobs.backups.place import Manifest, Place
from jobs.collector import Report as Findings
from jobs.database import Sessions
from jobs.errors import BadRequest
from jobs.ledger import restoration
from jobs.ledger.restoration import Released
from jobs.objects import ObjectStore

Report = Callable[[str], None]


@dataclass(frozen=True)
class Restored:
    """What there is now."""

    taken_at: str | None  # of the backup; null: others have brought the database back
    objects: int
    released: Released
    missing: Sequence[str]  # keys of objects that rows name and that are not there


def restore(
    url: str,
    store: ObjectStore,
    sessions: Sessions,
    source: Place,
    *,
    with_objects: bool,
    programs: Path | None,
    report: Report,
) -> Restored:
    """Bring a backup back into an empty database, and its objects into the store."""
    manifest = source.manifest()
    _check_known(manifest)
    with sessions.begin() as session:
        fresh = restoration.begin(session, source.url)
    if fresh:
        dump.restore(url, source.read_dump(manifest), programs=programs)
    database.migrate(url)
    report(f"the database, as of {manifest.taken_at:%Y-%m-%d %H:%M:%S} UTC")
    copied = 0
    if with_objects:
        copied, size = _copy_needed(sessions, source.objects, store)
        report(f"the objects that its rows name: {copied:,}, {size:,} bytes")
    return _finish(sessions, store, copied=copied, taken_at=manifest.taken_at.isoformat())


def adopt(url: str, store: ObjectStore, sessions: Sessions) -> Restored:
    """End all that was under way in a database that others have brought back."""
    database.migrate(url)
    return _finish(sessions, store, copied=0, taken_at=None)


def _finish(
    sessions: Sessions, store: ObjectStore, *, copied: int, taken_at: str | None
) -> Restored:
    with sessions.begin() as session:
        released = restoration.finish(session)
    found = Findings()
    collector.find_missing(sessions, store, found, mark=False)
    missing = [each.key for each in found.missing]
    return Restored(taken_at=taken_at, objects=copied, released=released, missing=missing)


def _copy_needed(sessions: Sessions, source: ObjectStore, target: ObjectStore) -> tuple[int, int]:
    """Not those that are newer than the rows: new work writes under the same keys as they have."""
    choose = collector.named_of(sessions, source)
    return place.copy(source, target, choose=choose)


def _check_known(manifest: Manifest) -> None:
    if manifest.revision not in database.revisions():
        raise BadRequest(
            f"the backup is of version {manifest.version}, whose schema ({manifest.revision}) this "
            "version does not know: restore it with that version or a later one",
            code="backup_newer",
        )
