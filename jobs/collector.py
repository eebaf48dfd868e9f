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
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice

from jobs.database import Sessions
from jobs.decisions import stored_objects
from jobs.decisions.stored_objects import ObjectKind, StoredKey
from jobs.errors import Damaged, StorageFault
from jobs.ledger import collection_rounds, damage
from jobs.lookups import backups, clock
from jobs.lookups.chunk_folds import FoldedChunks
from jobs.objects import DELETED_AT_ONCE, ObjectStore, Stored
from jobs.queries import storage
from jobs.queries.storage import NamedObject, Snapshot
from jobs.results import chunk_folds
from jobs.results.chunk_folds import NamedParts

SHOWN = 20
"""Keys of each sort that a report names."""


BACKUP = "a backup is under way; collect again after its end"
"""Why garbage stays for now."""

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
    report, folded = Report(), NamedParts(store)
    with sessions.begin() as session:
        began = clock.now(session)
    objects = store.listing()
    while batch := list(islice(objects, DELETED_AT_ONCE)):
        if not going():
            return None
        garbage = _sift(sessions, batch, report, folded, before=began - grace, unknown=unknown)
        if garbage and not dry_run:
            _remove(sessions, store, garbage, report)
    usage = {place: (report.counts[place], size) for place, size in report.usage.items()}
    with sessions.begin() as session:
        collection_rounds.record_usage(session, usage, measured_at=began)
    return report


def find_missing(sessions: Sessions, store: ObjectStore, report: Report, *, mark: bool) -> None:
    """Look for the object of every row; one question to the store for each.

    ``mark``: a part that is gone is marked as damaged, so that a retry computes it again.
    """
    folded = NamedParts(store)
    with sessions.begin() as session:
        folds = list(storage.folds(session, with_parts=True))
    with ThreadPoolExecutor(QUESTIONS) as pool:
        with sessions.begin() as session:
            rows = storage.named_objects(session)
            report.missing += _missing(sessions, store, pool, rows, folded)
        of_folds = _parts_of(store, folds, report)  # which takes long: outside of a transaction
        report.missing += _missing(sessions, store, pool, of_folds, folded)
    if mark:
        for named in report.missing:
            _mark(sessions, named)


def named_of(
    sessions: Sessions, store: ObjectStore
) -> Callable[[Sequence[Stored]], Sequence[Stored]]:
    """Chooses, of objects of this store, those that rows name."""
    report, folded = Report(), NamedParts(store)

    def choose(batch: Sequence[Stored]) -> Sequence[Stored]:
        read = [(each, stored_objects.read(each.key)) for each in batch]
        ours = [(each, key) for each, key in read if key is not None]
        with sessions.begin() as session:
            snapshot = storage.snapshot(session, [key for _, key in ours])
        return [each for each, key in ours if _is_named(snapshot, folded, key, report)]

    return choose


def _missing(
    sessions: Sessions,
    store: ObjectStore,
    pool: ThreadPoolExecutor,
    named: Iterator[NamedObject],
    folded: NamedParts,
) -> Iterator[NamedObject]:
    """Those without an object that are named even now: the row may have gone as well."""
    while batch := list(islice(named, storage.FETCHED)):
        there = pool.map(store.exists, [each.key for each in batch])
        for each in [each for each, is_there in zip(batch, there, strict=True) if not is_there]:
            if _still_named(sessions, each, folded):
                yield each


def _parts_of(
    store: ObjectStore, folds: Iterable[FoldedChunks], report: Report
) -> Iterator[NamedObject]:
    """The parts of folded chunks. Of a list of chunks that is damaged they are not known."""
    for fold in folds:
        try:
            found = list(chunk_folds.parts_of(store, fold))
        except Damaged as damage:
            report.faults.append(damage.message)
        else:
            yield from (NamedObject(part.key, fold.job_id, part.chunk_id) for part in found)


def _sift(
    sessions: Sessions,
    batch: list[Stored],
    report: Report,
    folded: NamedParts,
    *,
    before: datetime,
    unknown: bool,
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
        if not owner.at_rest or each.modified > before:
            continue
        if not _is_named(snapshot, folded, key, report):
            report.garbage.add(each)
            garbage.append(each)
    return garbage


def _is_named(snapshot: Snapshot, folded: NamedParts, key: StoredKey, report: Report) -> bool:
    """Whether a row names the object, or folded chunks do: if these are unreadable, it is."""
    if key.named_by in snapshot.named:
        return True
    folds = snapshot.folds.get(key.job_id or "")
    if folds is None or key.kind is not ObjectKind.PARTS:
        return False
    try:
        return folded.has(folds, key.key, first_row=stored_objects.first_row(key))
    except (Damaged, StorageFault) as fault:
        if fault.message not in report.faults:
            report.faults.append(fault.message)
        return True


def _remove(sessions: Sessions, store: ObjectStore, garbage: list[Stored], report: Report) -> None:
    """A store that fails is asked again in the next round; so is one of which a backup is taken."""
    with sessions.begin() as session:
        if backups.under_way(session):
            if BACKUP not in report.faults:
                report.faults.append(BACKUP)
            return
    try:
        store.delete_all([each.key for each in garbage])
        report.removed += len(garbage)
    except StorageFault as fault:
        report.faults.append(fault.message)


def _still_named(sessions: Sessions, named: NamedObject, folded: NamedParts) -> bool:
    key = stored_objects.read(named.key)
    if key is None:
        return True
    with sessions.begin() as session:
        snapshot = storage.snapshot(session, [key])
    return _is_named(snapshot, folded, key, Report())


def _mark(sessions: Sessions, named: NamedObject) -> None:
    """What a retry can compute again: a part, or folded chunks."""
    key = stored_objects.read(named.key)
    with sessions.begin() as session:
        if named.chunk_id is not None:
            reason = f"the part {named.key} is gone from the object store"
            damage.mark_part(session, named.chunk_id, key=named.key, reason=reason)
        elif key is not None and key.kind is ObjectKind.CHUNKS:
            damage.mark_fold(session, named.key, reason=f"{named.key} is gone from the store")
