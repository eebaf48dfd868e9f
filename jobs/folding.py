"""Folds the chunks of jobs that ended long ago into objects, and unfolds them for a retry.

Retention marks a job when its ``chunks`` period is over. From then on a thread of the API folds it,
``ledger.chunk_folds.CHUNKS`` chunks at a time: a short transaction, an object, a short transaction.
Those who read chunks find the same in rows and in folds (``results.chunk_folds``), so a process
may stop, or be killed, anywhere (docs/decisions/0050).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import structlog
from sqlalchemy.orm import Session

from jobs.database import Sessions
from jobs.errors import Damaged, JobFolded, LeaseLost, StorageFault
from jobs.ledger import chunk_folds as ledger
from jobs.ledger import removals
from jobs.ledger.removals import MarkedPiece
from jobs.objects import ObjectStore
from jobs.results import chunk_folds as objects
from jobs.retention import Piece

log = structlog.get_logger(__name__)

T = TypeVar("T")

CLAIM = timedelta(seconds=60)
"""How long one process has a job for itself; also the pause after a fault of the store."""

SECONDS = 1.0
"""For about so long the calls of ``fold_due`` work, whatever there is to fold."""

TRIES = 5
"""As often one retry unfolds the same job, should a policy fold it again meanwhile."""


def fold_due(sessions: Sessions, store: ObjectStore, *, seconds: float = SECONDS) -> int:
    """Fold chunks of jobs that are due, for about this long; how many chunks were folded."""
    until, folded = time.monotonic() + seconds, 0
    while True:
        with sessions.begin() as session:
            marked = removals.claim(session, duration=CLAIM, pieces=[Piece.CHUNKS])
        if marked is None:
            return folded
        try:
            folded += _fold_job(sessions, store, marked, until=until)
        except StorageFault as fault:
            log.warning("chunks are folded later", job_id=marked.job_id, error=fault.message)
        if time.monotonic() >= until:
            return folded


def _fold_job(sessions: Sessions, store: ObjectStore, marked: MarkedPiece, *, until: float) -> int:
    with sessions.begin() as session:
        if removals.postpone_if_busy(session, marked):
            return 0
    folded = 0
    while chunks := _fold_some(sessions, store, marked.job_id):
        folded += chunks
        if time.monotonic() >= until:
            with sessions.begin() as session:
                ledger.release(session, marked.job_id)
            break
    return folded


def _fold_some(sessions: Sessions, store: ObjectStore, job_id: str) -> int:
    """Fold the next chunks of a job; how many. 0: there are none, or it is not to be folded."""
    key = objects.new_key(job_id)
    with sessions.begin() as session:
        chunks = ledger.begin(session, job_id, key=key, duration=CLAIM)
    if not chunks:
        if chunks is not None:
            log.info("a job is folded", job_id=job_id)
        return 0
    written = objects.write(store, key, chunks)
    try:
        with sessions.begin() as session:
            ledger.commit(
                session, job_id, chunks, key=key, sha256=written.sha256, size=written.bytes
            )
    except LeaseLost as lost:
        log.info("a fold is thrown away", job_id=job_id, reason=lost.message)
        return 0
    return len(chunks)


def retried(sessions: Sessions, store: ObjectStore, retry: Callable[[Session], T]) -> T:
    """``retry`` in a transaction; each job that it finds folded is unfolded before it comes again.

    Raises ``JobFolded`` if others fold the job again and again.
    """
    tries: Counter[str] = Counter()
    while True:
        try:
            with sessions.begin() as session:
                return retry(session)
        except JobFolded as found:
            tries[found.job_id] += 1
            if tries[found.job_id] > TRIES:
                raise
            unfold(sessions, store, found.job_id)


def unfold(sessions: Sessions, store: ObjectStore, job_id: str) -> None:
    """Make rows of all chunks of a job, one fold at a time.

    A process that dies on the way leaves a job of which a part is folded, as folding does. The
    objects stay until the garbage collector takes them: readers may be at them.
    """
    with sessions.begin() as session:
        folds = ledger.stop(session, job_id)
    for fold in folds:
        try:
            chunks = objects.read(store, fold)
        except Damaged as damage:
            log.warning("folded chunks are computed again", job_id=job_id, reason=damage.message)
            with sessions.begin() as session:
                ledger.compute_again(session, fold)
        else:
            with sessions.begin() as session:
                ledger.restore(session, fold, chunks)
