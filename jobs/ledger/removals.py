"""Pieces of ended jobs that are removed: marked in one transaction, then purged in the background.

A retry of the job forgets the marks (or is refused, where it would need what is gone). So who
purges lists objects first and then looks whether the mark still stands: if it does, no retry has
begun, and whatever a later retry writes has another key. ``jobs.purger`` removes the objects.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from jobs.errors import Conflict
from jobs.ledger import events
from jobs.lookups import predicates
from jobs.lookups import removals as lookup
from jobs.retention import NEEDED, Piece
from jobs.tables import Checkpoint, CheckpointPart, Job, LogLine, Removal, ResultRow, Run, Shard

BATCH = 5_000
"""Rows that one transaction removes."""

PURGED = frozenset(Piece) - {Piece.CHUNKS}
"""Pieces whose objects and rows go. Chunks stay: they fold (``jobs.folding``)."""

BUSY_PAUSE = timedelta(seconds=30)
"""After this, a job of which a process still holds something is looked at again."""


@dataclass(frozen=True)
class MarkedPiece:
    """A piece whose objects and rows are still there."""

    job_id: str
    piece: Piece


def mark(session: Session, job: Job, pieces: Iterable[Piece]) -> None:
    """Remove pieces of an ended job, whose row is locked; nothing finds them from now on."""
    marked = sorted(pieces)
    if not marked:
        return
    session.execute(
        insert(Removal)
        .values([{"job_id": job.id, "piece": each, "purge_at": sa.func.now()} for each in marked])
        .on_conflict_do_nothing()
    )
    if Piece.CHECKPOINTS in marked:
        _forget_checkpoints(session, job.id)
    if Piece.OUTPUTS in marked and job.output is not None:
        job.output = {**job.output, "file": None, "manifest": None}
    if gone := [piece for piece in marked if piece in PURGED]:
        events.record(session, job_id=job.id, type="removed", pieces=gone)


def lift(session: Session, job: Job) -> None:
    """Forget the marks of a job that is retried. Raises ``Conflict`` if it needs what is gone."""
    gone = lookup.of_job(session, job.id)
    needed = sorted(gone.keys() & NEEDED)
    if needed:
        raise Conflict(
            f"{job.id} cannot be retried: its {' and '.join(needed)} went on "
            f"{gone[needed[0]]:%Y-%m-%d}, as the project's retention says; submit it again",
            code="job_removed_in_part",
        )
    session.execute(sa.delete(Removal).where(Removal.job_id == job.id))


def claim(
    session: Session, *, duration: timedelta, pieces: Collection[Piece] = PURGED
) -> MarkedPiece | None:
    """A marked piece of these that is due, for as long as ``duration``."""
    due = session.execute(
        sa.select(Removal.job_id, Removal.piece)
        .where(Removal.purge_at <= sa.func.now(), Removal.piece.in_(pieces))
        .order_by(Removal.purge_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    ).one_or_none()
    if due is None:
        return None
    marked = MarkedPiece(due.job_id, Piece(due.piece))
    later = sa.func.now() + duration
    session.execute(sa.update(Removal).where(_of(marked)).values(purge_at=later))
    return marked


def postpone_if_busy(session: Session, marked: MarkedPiece) -> bool:
    """Whether a process still holds a lease of the job; then the piece is due a little later."""
    busy = sa.select(Job.id).where(Job.id == marked.job_id, predicates.job_busy())
    postponed = session.scalar(
        sa.update(Removal)
        .where(_of(marked), busy.exists())
        .values(purge_at=sa.func.now() + BUSY_PAUSE)
        .returning(Removal.job_id)
    )
    return postponed is not None


def stands(session: Session, marked: MarkedPiece) -> bool:
    """Whether the piece is still marked; holds off a retry until this transaction ends."""
    query = sa.select(Removal.job_id).where(_of(marked)).with_for_update()
    return session.scalar(query) is not None


def remove_rows(session: Session, marked: MarkedPiece) -> bool:
    """Remove a batch of the piece's rows; ``False``: there was nothing left, or a retry came."""
    if not stands(session, marked):
        return False
    match marked.piece:
        case Piece.ROWS:
            return _remove(session, ResultRow, ResultRow.job_id == marked.job_id)
        case Piece.LOGS:
            return _remove(session, LogLine, LogLine.job_id == marked.job_id)
        case Piece.SHARDS:
            return _remove(session, Shard, Shard.job_id == marked.job_id)
        case Piece.CHECKPOINTS:
            runs = sa.select(Run.id).where(Run.job_id == marked.job_id)
            return _remove(session, CheckpointPart, CheckpointPart.run_id.in_(runs))
    return False


def finish(session: Session, marked: MarkedPiece) -> None:
    """Nothing of the piece is left; that it was removed stays on record."""
    session.execute(sa.update(Removal).where(_of(marked)).values(purge_at=None))


def _of(marked: MarkedPiece) -> sa.ColumnElement[bool]:
    return sa.and_(Removal.job_id == marked.job_id, Removal.piece == marked.piece)


def _forget_checkpoints(session: Session, job_id: str) -> None:
    """No run resumes from one of them any more."""
    session.execute(
        sa.update(Checkpoint)
        .where(Checkpoint.job_id == job_id, Checkpoint.deleted_at.is_(None))
        .values(deleted_at=sa.func.now())
    )


def _remove(session: Session, table: Any, condition: sa.ColumnElement[bool]) -> bool:
    keys = list(table.__table__.primary_key)
    some = sa.select(*keys).where(condition).limit(BATCH)
    removed = session.execute(sa.delete(table).where(sa.tuple_(*keys).in_(some)))
    return bool(removed.rowcount)  # type: ignore[attr-defined]
