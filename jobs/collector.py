"""The garbage collector: finds objects without a row, and rows without an object.

The order makes it safe, beside any upload, commit, retry and deletion (docs/decisions/0047):

1. It lists objects, and leaves out those that are younger than the grace period.
2. *Then* it reads the rows, in one snapshot: what was stored and committed before the listing has
   its row by now.
3. It removes an object if its owner is known, is at rest (a job has ended, and no process holds a
   lease of it) and no row names the object. Such an object cannot get a row any more: every commit
   is guarded by a lease, and a later lease has a new fence and so new keys.

It keeps no state between two objects: a process that is killed anywhere leaves nothing to mend, and
what is removed twice does no harm.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice

from jobs.database import Sessions
from jobs.decisions import stored_objects
from jobs.errors import StorageFault
from jobs.ledger import collection_rounds, damage
from jobs.lookups import clock
from jobs.objects import DELETED_AT_ONCE, ObjectStore, Stored
from jobs.queries import storage
from jobs.queries.storage import NamedObject

SHOWN = 20
"""Keys of each sort that a report names."""


QUESTIONS = 16
"""Of a search for missing objects, that are put to the store at a time."""


@dataclass
class Sort:
    """Objects of one sort, and the first of them."""

    objects: int = 0
    bytes: int = 0
    keys: list[str] = field(default_factory=list)

    def add(self, found: Stored) -> None:
        self.objects += 1
        self.bytes += found.bytes
        if len(self.keys) < SHOWN:
            self.keys.append(found.key)


@dataclass
class Report:
    """What a round has found."""

    objects: int = 0
    bytes: int = 0
    garbage: Sort = field(default_factory=Sort)  # removed, unless the round was dry
    unknown: Sort = field(default_factory=Sort)  # that this database knows nothing about
    missing: list[NamedObject] = field(default_factory=list)  # rows without an object
    removed: int = 0
    faults: list[str] = field(default_factory=list)  # why the store did not remove some
    usage: Counter[tuple[str, str]] = field(default_factory=Counter)  # bytes by project and kind
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)


Going = Callable[[], bool]
"""Asked between two batches: whether the round goes on."""


def collect(
    sessions: Sessions,
    store: ObjectStore,
    *,
    grace: timedelta,
    dry_run: bool,
    unknown: bool = False,
    going: Going = lambda: True,
) -> Report | None:
    """One round over every object; ``None``: it was broken off.

    ``unknown``: objects that have a key like ours and an owner that this database does not know are
    garbage, too. They may be those of another installation, or newer than a backup.
    """
    report = Report()
    with sessions.begin() as session:
        began = clock.now(session)
    objects = store.listing()
    while batch := list(islice(objects, DELETED_AT_ONCE)):
        if not going():
            return None
        garbage = _sift(sessions, batch, report, before=began - grace, unknown=unknown)
        if garbage and not dry_run:
            _remove(store, garbage, report)
    usage = {place: (report.counts[place], size) for place, size in report.usage.items()}
    with sessions.begin() as session:
        collection_rounds.record_usage(session, usage, measured_at=began)
    return report


def find_missing(sessions: Sessions, store: ObjectStore, report: Report, *, mark: bool) -> None:
    """Look for the object of every row; one question to the store for each.

    ``mark``: a part that is gone is marked as damaged, so that a retry computes it again.
    """
    with sessions.begin() as session, ThreadPoolExecutor(QUESTIONS) as pool:
        rows = storage.named_objects(session)
        while batch := list(islice(rows, storage.FETCHED)):
            there = pool.map(store.exists, [each.key for each in batch])
            gone = [each for each, is_there in zip(batch, there, strict=True) if not is_there]
            report.missing += [each for each in gone if _still_named(sessions, each)]
    if mark:
        for named in report.missing:
            _mark(sessions, named)


def _sift(
    sessions: Sessions, batch: list[Stored], report: Report, *, before: datetime, unknown: bool
) -> list[Stored]:
    """Count the objects, and choose those that are garbage."""
    read = {each.key: stored_objects.read(each.key) for each in batch}
    with sessions.begin() as session:
        snapshot = storage.snapshot(session, [each for each in read.values() if each is not None])
    garbage = []
    for each in batch:
        report.objects += 1
        report.bytes += each.bytes
        key = read[each.key]
        owner = None if key is None else snapshot.owners.get(key.job_id or key.key)
        if key is None or owner is None:
            if each.modified <= before:
                report.unknown.add(each)
                if unknown and key is not None:
                    garbage.append(each)
            continue
        place = (owner.project_id, key.kind.value)
        report.usage[place] += each.bytes
        report.counts[place] += 1
        if owner.at_rest and key.named_by not in snapshot.named and each.modified <= before:
            report.garbage.add(each)
            garbage.append(each)
    return garbage


def _remove(store: ObjectStore, garbage: list[Stored], report: Report) -> None:
    """A store that fails is asked again in the next round."""
    try:
        store.delete_all([each.key for each in garbage])
        report.removed += len(garbage)
    except StorageFault as fault:
        report.faults.append(fault.message)


def _still_named(sessions: Sessions, named: NamedObject) -> bool:
    """Whether the row is there even now: it may have gone together with its object."""
    key = stored_objects.read(named.key)
    if key is None:
        return True
    with sessions.begin() as session:
        return storage.still_named(session, key)


def _mark(sessions: Sessions, named: NamedObject) -> None:
    if named.chunk_id is None:
        return
    reason = f"the part {named.key} is gone from the object store"
    with sessions.begin() as session:
        damage.mark_part(session, named.chunk_id, key=named.key, reason=reason)
