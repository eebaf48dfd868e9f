"""Uploaded files: a row once the bytes are in the object store."""

from __future__ import annotations

from sqlalchemy.orm import Session

from jobs.tables import File


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
    )
    session.add(file)
    session.flush()
    session.refresh(file)
    return file
