"""Uploaded files: a row once the bytes are in the object store, a tombstone once it is deleted."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONPATH
from sqlalchemy.orm import Session

from jobs.errors import Conflict, NotFound
from jobs.kinds import AnySpec
from jobs.ledger import creations
from jobs.lookups import uses
from jobs.states import FINAL
from jobs.tables import File, Job, JobInput


def add(
    session: Session,
    *,
    file_id: str,
    project_id: str,
    filename: str,
    purpose: str,
    size: int,
    sha256: str,
    object_key: str,
    tag: str | None = None,
) -> File:
    """Record an upload whose object is complete.

    If the project has a file of the same bytes, the new one has the object of that file, and the
    one at ``object_key`` is not needed: the caller compares, and deletes it after the commit.
    """
    same = _same_bytes(session, project_id=project_id, sha256=sha256, size=size)
    file = File(
        id=file_id,
        project_id=project_id,
        filename=filename,
        purpose=purpose,
        bytes=size,
        sha256=sha256,
        object_key=same or object_key,
        tag=tag,
    )
    session.add(file)
    session.flush()
    session.refresh(file)
    return file


def find(session: Session, file_id: str) -> File | None:
    """The file, if its upload was recorded."""
    return session.get(File, file_id)


def _same_bytes(session: Session, *, project_id: str, sha256: str, size: int) -> str | None:
    """The object of a file with these bytes, which is not deleted before this transaction ends."""
    if not sha256:
        return None
    query = (
        sa.select(File.object_key)
        .where(
            File.project_id == project_id,
            File.sha256 == sha256,
            File.bytes == size,
            File.deleted_at.is_(None),
        )
        .order_by(File.created_at, File.id)
        .limit(1)
        .with_for_update(read=True)
    )
    return session.scalar(query)


def hold(session: Session, spec: AnySpec, *, project_id: str) -> None:
    """Keep the files that a spec names from being deleted before this transaction ends.

    Raises ``NotFound`` for one that is not there.
    """
    wanted = {
        file_id: f"{param}.{'file' if corpus.sources is None else 'sources'}"
        for param, corpus in spec.corpora()
        for file_id in corpus.files
    }
    for file_id in sorted(wanted.keys() - hold_all(session, wanted, project_id=project_id)):
        raise NotFound(
            f"no file {file_id!r} in this project; upload it first",
            code="file_not_found",
            param=wanted[file_id],
        )


def hold_all(session: Session, file_ids: Collection[str], *, project_id: str) -> set[str]:
    """Of these files those that are there; they cannot be deleted before this transaction ends."""
    return set(
        session.scalars(
            sa.select(File.id)
            .where(File.id.in_(file_ids), File.project_id == project_id, File.deleted_at.is_(None))
            .order_by(File.id)
            .with_for_update(read=True)
        )
    )


def delete(session: Session, file_id: str, *, project_id: str) -> None:
    """Make the file a tombstone, whose object ``jobs.purger`` removes.

    Raises ``NotFound``, and ``Conflict`` while a job that has not ended, or a schedule, needs it.
    """
    file = session.scalar(
        sa.select(File)
        .where(File.id == file_id, File.project_id == project_id, File.deleted_at.is_(None))
        .with_for_update()
    )
    if file is None:
        raise NotFound(f"no file {file_id!r} in this project")
    needs_it = user(session, file)
    if needs_it is not None:
        raise Conflict(f"{file_id} cannot be deleted: {needs_it}", code="file_in_use")
    bury(session, file.id)


def bury(session: Session, file_id: str) -> None:
    """Make a file, whose row is locked, a tombstone."""
    session.execute(
        sa.update(File)
        .where(File.id == file_id)
        .values(deleted_at=sa.func.now(), purge_at=sa.func.now())
    )
    creations.free_key(session, file_id)


def user(session: Session, file: File) -> str | None:
    """What needs the file, and what to do about it, in words; ``None``: nothing does.

    That is the oldest job under way whose spec names it, in whichever corpus, or a schedule whose
    fires would. Who submits locks the row of the file before it is named in a job.
    """
    query = sa.select(Job).where(
        Job.project_id == file.project_id, Job.state.not_in(FINAL), names(file.id)
    )
    job = session.scalar(query.order_by(Job.created_at, Job.id).limit(1))
    if job is not None:
        return (
            f"{job.id}, which is {job.state}, needs it: wait until the job has ended, or cancel it"
        )
    schedule = uses.schedule(session, file.id, project_id=file.project_id)
    if schedule is not None:
        return f"the schedule {schedule} needs it: edit or delete the schedule first"
    return None


def names(file_id: str) -> sa.ColumnElement[bool]:
    """Jobs whose spec names the file, in whichever corpus, or that took it."""
    return sa.or_(
        *(
            sa.func.jsonb_path_exists(
                Job.spec, sa.cast(path, JSONPATH), sa.func.jsonb_build_object("id", file_id)
            )
            for path in ("$.**.file ? (@ == $id)", "$.**.sources[*] ? (@ == $id)")
        ),
        sa.select(JobInput.job_id)
        .where(JobInput.job_id == Job.id, JobInput.name == file_id)
        .exists(),
    )
