"""Damage of stored results: what is recorded here, a retry of the job computes or writes again."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.states import ChunkState
from jobs.tables import Chunk, Job

MAX_REASON_CHARACTERS = 2000


def mark_part(session: Session, chunk_id: int, *, key: str, reason: str) -> None:
    """Record that the part of a chunk cannot be read."""
    session.execute(
        sa.update(Chunk)
        .where(Chunk.id == chunk_id, Chunk.state == ChunkState.DONE, Chunk.part_key == key)
        .values(damage=reason[:MAX_REASON_CHARACTERS])
    )


def mark_file(session: Session, job_id: str, *, key: str, reason: str) -> None:
    """Record that the single file of an ended job cannot be read."""
    job = session.scalar(sa.select(Job).where(Job.id == job_id).with_for_update())
    if job is not None and job.output is not None and job.output.get("file") == key:
        job.output = {**job.output, "damage": reason[:MAX_REASON_CHARACTERS]}
