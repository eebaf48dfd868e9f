"""Purges deleted jobs, files, versions and pieces of jobs: first objects, then their rows.

As long as a tombstone has its rows, its objects can be found. A process that dies in between leaves
a tombstone that is due again when its claim expires, and every step may be repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from itertools import islice
from typing import TypeVar

import structlog
from sqlalchemy.orm import Session

from jobs.database import Sessions
from jobs.errors import StorageFault
from jobs.ledger import deletions, removals
from jobs.ledger.deletions import DeletedFile, DeletedJob, DeletedVersion
from jobs.ledger.removals import MarkedPiece
from jobs.lookups import backups
from jobs.models import bundles
from jobs.objects import DELETED_AT_ONCE, ObjectStore
from jobs.results import parts, reports
from jobs.retention import Piece

log = structlog.get_logger(__name__)

CLAIM = timedelta(seconds=60)
"""How long one process has a tombstone for itself; also the pause after a fault of the store."""

FOLDERS: dict[Piece, tuple[str, ...]] = {
    Piece.SHARDS: ("shards", "data", "extracts"),
    Piece.PARTS: ("parts",),
    Piece.OUTPUTS: ("output",),
    Piece.CHECKPOINTS: ("checkpoints",),
}
"""Where the objects of a piece are in the job's folder; other pieces have none."""

Deleted = TypeVar("Deleted", DeletedFile, DeletedJob, DeletedVersion, MarkedPiece)
Claim = Callable[[Session], Deleted | None]
Purge = Callable[[Sessions, ObjectStore, Deleted], None]


def purge_deleted(sessions: Sessions, store: ObjectStore) -> int:
    """Purge every deleted file, job, version and piece that is due; how many were claimed.

    None while a backup is under way: it may have the rows, and not the objects yet.
    """
    files = _purge_each(sessions, store, partial(deletions.claim_file, duration=CLAIM), _purge_file)
    jobs = _purge_each(sessions, store, partial(deletions.claim_job, duration=CLAIM), _purge_job)
    claim_version = partial(deletions.claim_version, duration=CLAIM)
    versions = _purge_each(sessions, store, claim_version, _purge_version)
    pieces = _purge_each(sessions, store, partial(removals.claim, duration=CLAIM), _purge_piece)
    return files + jobs + versions + pieces


def _purge_each(
    sessions: Sessions, store: ObjectStore, claim: Claim[Deleted], purge: Purge[Deleted]
) -> int:
    """Claim tombstones one after the other, and purge each."""
    claimed = 0
    while True:
        with sessions.begin() as session:
            deleted = None if backups.under_way(session) else claim(session)
        if deleted is None:
            return claimed
        claimed += 1
        try:
            purge(sessions, store, deleted)
        except StorageFault as fault:
            log.warning("what was deleted stays for now", what=str(deleted), error=fault.message)


def _purge_file(sessions: Sessions, store: ObjectStore, file: DeletedFile) -> None:
    with sessions.begin() as session:
        alone = deletions.is_last_of_object(session, file)
    if alone:
        store.delete(file.key)
    with sessions.begin() as session:
        deletions.finish_file(session, file.id)
    log.info("a deleted file is removed", file=file.id)


def _purge_version(sessions: Sessions, store: ObjectStore, version: DeletedVersion) -> None:
    store.delete_all(version.keys)
    with sessions.begin() as session:
        deletions.finish_version(session, version)
    log.info("the files of a deleted version are removed", model=version.id)


def _purge_job(sessions: Sessions, store: ObjectStore, job: DeletedJob) -> None:
    with sessions.begin() as session:
        if deletions.postpone_if_busy(session, job.id):
            return
    objects = _remove_objects(store, job)
    more = True
    while more:
        with sessions.begin() as session:
            more = deletions.remove_rows(session, job.id)
    with sessions.begin() as session:
        deletions.finish_job(session, job.id)
    log.info("a deleted job is removed", job_id=job.id, objects=objects)


def _purge_piece(sessions: Sessions, store: ObjectStore, marked: MarkedPiece) -> None:
    with sessions.begin() as session:
        if removals.postpone_if_busy(session, marked):
            return
    folders = [
        f"{parts.job_folder(marked.job_id)}/{each}" for each in FOLDERS.get(marked.piece, ())
    ]
    if not all(_empty(sessions, store, folder, marked) for folder in folders):
        return
    more = True
    while more:
        with sessions.begin() as session:
            more = removals.remove_rows(session, marked)
    with sessions.begin() as session:
        removals.finish(session, marked)
    log.info("a piece of a job is removed", job_id=marked.job_id, piece=marked.piece)


def _empty(sessions: Sessions, store: ObjectStore, folder: str, marked: MarkedPiece) -> bool:
    """Remove every object of a folder; ``False``: a retry has made it the job's again.

    What a retry writes is not among the objects that were listed before the mark was seen.
    """
    while batch := list(islice(store.keys(folder), DELETED_AT_ONCE)):
        with sessions.begin() as session:
            if not removals.stands(session, marked):
                return False
        store.delete_all(batch)
    return True


def _remove_objects(store: ObjectStore, job: DeletedJob) -> int:
    """All but the version that it registered; the number of objects."""
    removed = store.delete_folder(parts.job_folder(job.id))
    fences = range(1, job.runs + 1)
    store.delete_all(
        [reports.report_key(job.project_id, job_id=job.id, fence=fence) for fence in fences]
    )
    if job.model is not None:
        for fence in fences:
            folder = bundles.folder(job.project_id, job.model, job_id=job.id, fence=fence)
            removed += store.delete_folder(folder, keep=job.kept)
    return removed
