"""Takes a backup: the rows in one snapshot, then the objects, of which none is removed meanwhile.

An object is stored before its row. So every object that a row of the snapshot names is in the store
when the snapshot is taken, and it is still there when it is copied: while a backup holds its lock,
no process removes objects that had a row (``lookups.backups``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from jobs import database, distribution
from jobs.backups import dump, place
from jobs.backups.place import Manifest, Place
from jobs.database import Sessions
from jobs.decisions import stored_objects
from jobs.ledger import restoration
from jobs.lookups import clock
from jobs.objects import ObjectStore, Stored

Report = Callable[[str], None]


def take(
    url: str,
    store: ObjectStore,
    sessions: Sessions,
    to: Place,
    *,
    programs: Path | None,
    report: Report,
) -> Manifest:
    """Back up database and objects to an empty place. Raises ``BackupUnderWay``, ``DumpFailed``."""
    to.check_empty()
    with restoration.held(url) as hold:
        with sessions.begin() as session:
            taken_at, revision = clock.now(session), restoration.revision(session)
        sha256, size = to.write_dump(dump.dumped(url, programs=programs))
        report(f"the database: {size:,} bytes")
        count, total = place.copy(store, to.objects, choose=_ours)
        report(f"the objects: {count:,}, {total:,} bytes")
        hold.check()
        manifest = Manifest(
            taken_at=taken_at,
            version=distribution.version() or "0",
            revision=revision or database.revisions()[0],
            dump_sha256=sha256,
            dump_bytes=size,
            objects=count,
            object_bytes=total,
        )
    to.write_manifest(manifest)
    return manifest


def _ours(batch: Sequence[Stored]) -> Sequence[Stored]:
    """Those with a key that this version writes."""
    return [each for each in batch if stored_objects.read(each.key) is not None]
