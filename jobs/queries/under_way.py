"""What an installation works on at one moment, and how much of it is safe."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.lookups import predicates
from jobs.states import LIVE_RUN, ChunkState
from jobs.tables import Checkpoint, Chunk, Run


@dataclass(frozen=True)
class RunUnderWay:
    """A live run, as it last reported."""

    job_id: str
    step: int
    stored: (
        int | None
    )  # step of the newest checkpoint that it could resume from; null: there is none


def runs(session: Session) -> list[RunUnderWay]:
    """Every run that holds hosts."""
    stored = (
        sa.select(sa.func.max(Checkpoint.step))
        .where(Checkpoint.job_id == Run.job_id, predicates.checkpoint_usable())
        .scalar_subquery()
    )
    query = sa.select(Run.job_id, Run.step, stored).where(Run.state.in_(LIVE_RUN)).order_by(Run.id)
    return [RunUnderWay(*row) for row in session.execute(query)]


def leased_chunks(session: Session) -> int:
    """Chunks that workers compute."""
    query = sa.select(sa.func.count()).where(Chunk.state == ChunkState.LEASED)
    return session.scalar(query) or 0
