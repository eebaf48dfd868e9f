"""What there is for control to do: a turn asks this first, and does only what is wanted."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.ledger import controls, rescue
from jobs.ledger.step_leases import Step
from jobs.queries import dispatch, failed_rows, gangs
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
    controls.late().exists().label("expire"),
    sa.exists(Chunk.id).where(rescue.silent()).label("rescue"),
    failed_rows.suspects().exists().label("judge"),
    dispatch.all_chunks_done().exists().label("finalize"),
    sa.exists(Job.id).where(sa.or_(*map(dispatch.wants_step, Step))).label("steps"),
    dispatch.pools().exists().label("chunks"),
    gangs.any_wanted().label("training"),
)


def look(session: Session) -> Wanted:
    """All of it, in one query."""
    return Wanted(**session.execute(_QUESTION).one()._asdict())
