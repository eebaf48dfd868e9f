"""Deleted jobs: a tombstone at once, whose rows go in batches when its objects are gone.

Deleted files and versions of models are tombstones in the same way, and keep their rows.

A tombstone keeps its id and its place: who deletes while paging goes on, and the lineage of
versions has something to point at. ``purge_at`` says when what is left of it is removed. A
process that claims it moves that time ahead; if it dies, the next one begins again, and what is
removed twice does no harm.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.errors import Conflict, NotFound
from jobs.ledger import groups
from jobs.states import FINAL, LIVE_RUN, ChunkState
from jobs.tables import (
    Checkpoint,
    CheckpointPart,
    Chunk,
    ChunkFold,
    Event,
    File,
    FoldedDamage,
    Job,
    JobDependency,
    JobInput,
    LogLine,
    ModelVersion,
    Point,
    Rank,
    Removal,
    ResultRow,
    Run,
    Shard,
)

BATCH = 5_000
"""Rows that one transaction removes: none holds its locks for long."""

BUSY_PAUSE = timedelta(seconds=2)
"""After this, a job of which a worker still holds something is looked at again."""

_BY_JOB: tuple[Any, ...] = (
    *(ResultRow, LogLine, Point, Event, Chunk, ChunkFold, FoldedDamage),
    *(Shard, JobDependency, Removal),
)
_BY_RUN: tuple[Any, ...] = (CheckpointPart, Rank)
"""Tables whose rows belong to a job alone, the largest first."""


@dataclass(frozen=True)
class DeletedJob:
    """A tombstone of a job whose objects are not removed yet."""

    id: str
    project_id: str
    model: str | None  # the name under which a fine-tune registers; null: of other kinds
    runs: int  # numbers of its runs are 1 to this
    kept: frozenset[str]  # keys of the version that it registered, which stay


@dataclass(frozen=True)
class DeletedFile:
    """A tombstone of a file whose object is not removed yet."""

    id: str
    key: str


@dataclass(frozen=True)
class DeletedVersion:
    """A tombstone of a version whose objects are not removed yet."""

    project_id: str
    name: str
    version: int
    keys: tuple[str, ...]

    @property
    def id(self) -> str:
        """As it was referred to."""
        return f"{self.name}@{self.version}"


def delete_job(session: Session, job_id: str, *, project_id: str) -> None:
    """Make the job a tombstone; its idempotency key is free for another job.

    Raises ``NotFound``, and ``Conflict`` if it has not ended or is kept.
    """
    job = session.scalar(
        sa.select(Job)
        .where(Job.id == job_id, Job.project_id == project_id, Job.deleted_at.is_(None))
        .with_for_update()
    )
    if job is None:
        raise NotFound(f"no job {job_id!r} in this project")
    if job.state not in FINAL:
        raise Conflict(
            f"{job_id} is {job.state}: delete it when it has ended, or cancel it first",
            code="job_not_ended",
        )
    if job.kept:
        raise Conflict(
            f"{job_id} is kept: run `nightshift jobs keep {job_id} --off` first", code="job_kept"
        )
    bury(session, job_id)


def bury(session: Session, job_id: str) -> None:
    """Make an ended job, whose row is locked, a tombstone."""
    session.execute(
        sa.update(Job)
        .where(Job.id == job_id)
        .values(deleted_at=sa.func.now(), purge_at=sa.func.now(), idempotency_key=None)
    )


def claim_file(session: Session, *, duration: timedelta) -> DeletedFile | None:
    """A tombstone of a file that is due, for as long as ``duration``."""
    row = session.execute(
        sa.update(File)
        .where(File.id == _due(File))
        .values(purge_at=sa.func.now() + duration)
        .returning(File.id, File.object_key)
    ).one_or_none()
    return None if row is None else DeletedFile(row.id, row.object_key)


def claim_job(session: Session, *, duration: timedelta) -> DeletedJob | None:
    """A tombstone of a job that is due, for as long as ``duration``."""
    row = session.execute(
        sa.update(Job)
        .where(Job.id == _due(Job))
        .values(purge_at=sa.func.now() + duration)
        .returning(Job.id, Job.project_id, Job.kind, Job.spec)
    ).one_or_none()
    if row is None:
        return None
    runs = session.scalar(sa.select(sa.func.max(Run.number)).where(Run.job_id == row.id))
    version = session.scalar(
        sa.select(ModelVersion).where(
            ModelVersion.job_id == row.id, ModelVersion.deleted_at.is_(None)
        )
    )
    return DeletedJob(
        id=row.id,
        project_id=row.project_id,
        model=row.spec.get("model") if row.kind == "finetune" else None,
        runs=runs or 0,
        kept=frozenset(file["key"] for file in version.files) if version else frozenset(),
    )


def claim_version(session: Session, *, duration: timedelta) -> DeletedVersion | None:
    """A tombstone of a version that is due, for as long as ``duration``."""
    version = session.scalar(
        sa.select(ModelVersion)
        .where(ModelVersion.purge_at <= sa.func.now())
        .order_by(ModelVersion.purge_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    if version is None:
        return None
    version.purge_at = session.scalar(sa.select(sa.func.now() + duration))
    return DeletedVersion(
        project_id=version.project_id,
        name=version.name,
        version=version.version,
        keys=tuple(file["key"] for file in version.files),
    )


def finish_version(session: Session, deleted: DeletedVersion) -> None:
    """Leave the tombstone alone."""
    session.execute(
        sa.update(ModelVersion)
        .where(
            ModelVersion.project_id == deleted.project_id,
            ModelVersion.name == deleted.name,
            ModelVersion.version == deleted.version,
            ModelVersion.deleted_at.is_not(None),
        )
        .values(purge_at=None)
    )


def postpone_if_busy(session: Session, job_id: str) -> bool:
    """Whether a worker or a host still holds a lease of the job; then it is due a little later.

    What it is about to write would come behind the back of who removes the job's objects.
    """
    leased_chunks = sa.select(Chunk.id).where(
        Chunk.job_id == job_id,
        Chunk.state == ChunkState.LEASED,
        Chunk.lease_expires_at > sa.func.now(),
    )
    live = sa.select(Run.id).where(Run.job_id == job_id, Run.state.in_(LIVE_RUN))
    busy = sa.or_(leased_chunks.exists(), live.exists(), Job.step_lease_expires_at > sa.func.now())
    postponed = session.scalar(
        sa.update(Job)
        .where(Job.id == job_id, busy)
        .values(purge_at=sa.func.now() + BUSY_PAUSE)
        .returning(Job.id)
    )
    return postponed is not None


def remove_rows(session: Session, job_id: str) -> bool:
    """Remove a batch of the job's rows; ``False``: there was nothing left."""
    for table in _BY_JOB:
        if _remove(session, table, table.job_id == job_id):
            return True
    if _remove(session, JobInput, sa.and_(JobInput.job_id == job_id, _of_no_schedule(job_id))):
        return True
    of_job = sa.select(Run.id).where(Run.job_id == job_id)
    for table in _BY_RUN:
        if _remove(session, table, table.run_id.in_(of_job)):
            return True
    session.execute(sa.update(Run).where(Run.job_id == job_id).values(checkpoint_id=None))
    return _remove(session, Checkpoint, Checkpoint.job_id == job_id) or _remove(
        session, Run, Run.job_id == job_id
    )


def _of_no_schedule(job_id: str) -> sa.ColumnElement[bool]:
    """What a schedule's job has taken stays: else its next fire would take it again."""
    return sa.select(Job.id).where(Job.id == job_id, Job.fire_id.is_(None)).exists()


def finish_job(session: Session, job_id: str) -> None:
    """Leave the tombstone alone, without what its owner wrote into it, in no group."""
    group_id = session.scalar(sa.select(Job.group_id).where(Job.id == job_id))
    session.execute(
        sa.update(Job)
        .where(Job.id == job_id, Job.deleted_at.is_not(None))
        .values(
            purge_at=None,
            spec={},
            retention=None,
            group_id=None,
            member=sa.case((Job.fire_id.is_not(None), Job.member)),  # what it took is its like's
            output=None,
            reading=None,
            dataset=None,
            error_message=None,
            skipped=sa.case((Job.skipped.is_not(None), "")),
            step_error=None,
            run_error=None,
        )
    )
    if group_id is not None:
        groups.forget(session, group_id)


def is_last_of_object(session: Session, file: DeletedFile) -> bool:
    """Whether no file that is there has the same object.

    Once this is so it stays so: a file gets the object of another only while that is there, and
    holds its row meanwhile (``jobs.ledger.files.add``).
    """
    others = sa.select(File.id).where(File.object_key == file.key, File.deleted_at.is_(None))
    return session.scalar(others.limit(1)) is None


def finish_file(session: Session, file_id: str) -> None:
    """Leave the tombstone alone, without its name."""
    session.execute(
        sa.update(File)
        .where(File.id == file_id, File.deleted_at.is_not(None))
        .values(purge_at=None, filename="")
    )


def _due(table: type[Job | File]) -> sa.ScalarSelect[str]:
    return (
        sa.select(table.id)
        .where(table.purge_at <= sa.func.now())
        .order_by(table.purge_at)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )


def _remove(session: Session, table: Any, condition: sa.ColumnElement[bool]) -> bool:
    keys = list(table.__table__.primary_key)
    some = sa.select(*keys).where(condition).limit(BATCH)
    removed = session.execute(sa.delete(table).where(sa.tuple_(*keys).in_(some)))
    return bool(removed.rowcount)  # type: ignore[attr-defined]
