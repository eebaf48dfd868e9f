"""Damage of stored results: what is recorded here, a retry of the job computes or writes again."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from jobs.decisions import stored_objects
from jobs.lookups import chunk_folds
from jobs.states import ChunkState
from jobs.tables import Chunk, ChunkFold, FoldedDamage, Job

MAX_REASON_CHARACTERS = 2000


def mark_part(session: Session, chunk_id: int, *, key: str, reason: str) -> None:
    """Record that the part of a chunk cannot be read, whether it is a row or folded."""
    reason = reason[:MAX_REASON_CHARACTERS]
    if _mark_row(session, chunk_id, key=key, reason=reason):
        return
    stored = stored_objects.read(key)
    if stored is None or stored.job_id is None:
        return
    # Under this lock nothing is folded or unfolded.
    session.execute(sa.select(Job.id).where(Job.id == stored.job_id).with_for_update())
    if _mark_row(session, chunk_id, key=key, reason=reason):
        return
    if chunk_folds.has_any(session, stored.job_id):
        values = {"part_key": key, "reason": reason}
        session.execute(
            insert(FoldedDamage)
            .values(job_id=stored.job_id, chunk_id=chunk_id, **values)
            .on_conflict_do_update(index_elements=["job_id", "chunk_id"], set_=values)
        )


def mark_fold(session: Session, key: str, *, reason: str) -> None:
    """Record that the object of folded chunks cannot be read."""
    session.execute(
        sa.update(ChunkFold)
        .where(ChunkFold.key == key)
        .values(damage=reason[:MAX_REASON_CHARACTERS])
    )


def _mark_row(session: Session, chunk_id: int, *, key: str, reason: str) -> bool:
    marked = session.scalar(
        sa.update(Chunk)
        .where(Chunk.id == chunk_id, Chunk.state == ChunkState.DONE, Chunk.part_key == key)
        .values(damage=reason)
        .returning(Chunk.id)
    )
    return marked is not None


def mark_file(session: Session, job_id: str, *, key: str, reason: str) -> None:
    """Record that the single file of an ended job cannot be read."""
    job = session.scalar(sa.select(Job).where(Job.id == job_id).with_for_update())
    if job is not None and job.output is not None and job.output.get("file") == key:
        job.output = {**job.output, "damage": reason[:MAX_REASON_CHARACTERS]}
