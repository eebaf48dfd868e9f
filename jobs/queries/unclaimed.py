"""Why a claim failed, for those who watch tasks in Flower (promise P11)."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.states import CLAIMABLE, STEP_STATES, ChunkState, JobState, JobStep
from jobs.tables import Chunk, Job

_CHUNK: dict[ChunkState, str] = {
    ChunkState.PENDING: "the chunk is not due yet",
    ChunkState.LEASED: "another process has the chunk",
    ChunkState.DONE: "the chunk is done",
    ChunkState.SPLIT: "the chunk was cut in two",
}

_BEHIND: dict[JobStep, frozenset[JobState]] = {
    JobStep.PLAN: frozenset({JobState.RUNNING, JobState.FINALIZING, JobState.SUCCEEDED}),
    JobStep.FINALIZE: frozenset({JobState.SUCCEEDED, JobState.CANCELLED}),
}
"""States of a job that has this step behind it."""

_CHUNKS_BEHIND = frozenset({JobState.FINALIZING, JobState.SUCCEEDED})


@dataclass(frozen=True)
class Unclaimed:
    """Why a process did not get the work of a message."""

    reason: str
    superseded: bool  # another process has the work or did it; else its job does not want it now


def of_chunk(session: Session, chunk_id: int) -> Unclaimed:
    """As the chunk and its job stand now."""
    found = session.execute(
        sa.select(Chunk.state, Job.state)
        .join(Job, Job.id == Chunk.job_id)
        .where(Chunk.id == chunk_id)
    ).one_or_none()
    if found is None:
        return Unclaimed("there is no such chunk", superseded=False)
    chunk, job = found
    if job in CLAIMABLE:
        return Unclaimed(_CHUNK[chunk], superseded=chunk is not ChunkState.PENDING)
    return Unclaimed(f"the job is {job}", superseded=job in _CHUNKS_BEHIND)


def of_step(session: Session, job_id: str, *, step: JobStep) -> Unclaimed:
    """The same of a job's step."""
    state = session.scalar(sa.select(Job.state).where(Job.id == job_id))
    if state is None:
        return Unclaimed("there is no such job", superseded=False)
    if state in STEP_STATES[step]:
        return Unclaimed("another process has it, or it is not due yet", superseded=True)
    return Unclaimed(f"the job is {state}", superseded=state in _BEHIND[step])
