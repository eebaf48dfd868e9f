"""Why a claim failed, for those who watch tasks in Flower (promise P11)."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.states import CLAIMABLE, STEP_STATES, ChunkState, JobStep
from jobs.tables import Chunk, Job

_CHUNK: dict[ChunkState, str] = {
    ChunkState.PENDING: "the chunk is not due yet",
    ChunkState.LEASED: "another process has the chunk",
    ChunkState.DONE: "the chunk is done",
    ChunkState.SPLIT: "the chunk was cut in two",
}


def of_chunk(session: Session, chunk_id: int) -> str:
    """In words, as the chunk and its job stand now."""
    found = session.execute(
        sa.select(Chunk.state, Job.state)
        .join(Job, Job.id == Chunk.job_id)
        .where(Chunk.id == chunk_id)
    ).one_or_none()
    if found is None:
        return "there is no such chunk"
    chunk, job = found
    return _CHUNK[chunk] if job in CLAIMABLE else f"the job is {job}"


def of_step(session: Session, job_id: str, *, step: JobStep) -> str:
    """The same of a job's step."""
    state = session.scalar(sa.select(Job.state).where(Job.id == job_id))
    if state is None:
        return "there is no such job"
    if state in STEP_STATES[step]:
        return "another process has it, or it is not due yet"
    return f"the job is {state}"
