"""What there is for control to do: a turn asks this first, and does only what is wanted."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.lookups import predicates
from jobs.queries import dispatch, failed_rows, gangs
from jobs.states import JobStep
from jobs.tables import Chunk, Job


@dataclass(frozen=True)
class Wanted:
    """Parts of a turn that may find something; the others would find nothing."""

    expire: bool
    rescue: bool
    judge: bool
    finalize: bool
    steps: bool
    chunks: bool
    training: bool


_QUESTION = sa.select(
    sa.exists(Job.id).where(predicates.job_expired()).label("expire"),
    sa.exists(Chunk.id).where(predicates.chunk_lease_expired()).label("rescue"),
    sa.exists(Job.id).where(failed_rows.is_suspect()).label("judge"),
    sa.exists(Job.id).where(dispatch.is_computed()).label("finalize"),
    sa.exists(Job.id).where(sa.or_(*map(predicates.step_claimable, JobStep))).label("steps"),
    sa.exists(Job.id).where(dispatch.has_claimable_chunks()).label("chunks"),
    gangs.any_wanted().label("training"),
)


def look(session: Session) -> Wanted:
    """All of it, in one query."""
    return Wanted(**session.execute(_QUESTION).one()._asdict())
