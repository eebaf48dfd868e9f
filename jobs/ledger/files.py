"""Uploaded files: a row once the bytes are in the object store, a tombstone once it is deleted."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONPATH
from sqlalchemy.orm import Session

from jobs.errors import Conflict, NotFound
from jobs.kinds import AnySpec
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
    """Record an upload whose object is complete."""
    file = File(
        id=file_id,
        project_id=project_id,
        filename=filename,
        purpose=purpose,
        bytes=size,
        sha256=sha256,
        object_key=object_key,
        tag=tag,
    )
    session.add(file)
    session.flush()
    session.refresh(file)
    return file


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

    Raises ``NotFound``, and ``Conflict`` while a job that has not ended needs it.
    """
    file = session.scalar(
        sa.select(File)
        .where(File.id == file_id, File.project_id == project_id, File.deleted_at.is_(None))
        .with_for_update()
    )
    if file is None:
        raise NotFound(f"no file {file_id!r} in this project")
    user = _user(session, file)
    if user is not None:
        raise Conflict(
            f"{file_id} cannot be deleted: {user.id}, which is {user.state}, needs it: wait until "
            "the job has ended, or cancel it",
            code="file_in_use",
        )
    session.execute(
        sa.update(File)
        .where(File.id == file_id)
        .values(deleted_at=sa.func.now(), purge_at=sa.func.now())
    )


def _user(session: Session, file: File) -> Job | None:
    """The oldest job under way whose spec names the file, in whichever corpus, or that took it."""
    named = sa.or_(
        *(
            sa.func.jsonb_path_exists(
                Job.spec, sa.cast(path, JSONPATH), sa.func.jsonb_build_object("id", file.id)
            )
            for path in ("$.**.file ? (@ == $id)", "$.**.sources[*] ? (@ == $id)")
        ),
        sa.select(JobInput.job_id)
        .where(JobInput.job_id == Job.id, JobInput.name == file.id)
        .exists(),
    )
    query = sa.select(Job).where(Job.project_id == file.project_id, Job.state.not_in(FINAL), named)
    return session.scalar(query.order_by(Job.created_at, Job.id).limit(1))
