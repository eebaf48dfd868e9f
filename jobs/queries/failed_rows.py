"""Jobs of which rows have failed: control asks each of them whether too many did."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.kinds import BULK
from jobs.lookups import predicates
from jobs.states import CLAIMABLE
from jobs.tables import Chunk, Job


def suspects(session: Session) -> list[str]:
    """Jobs under way of which a row has failed."""
    return list(session.scalars(sa.select(Job.id).where(is_suspect())))


def is_suspect() -> sa.ColumnElement[bool]:
    """That a job is under way and a row of it has failed."""
    failed = sa.select(Chunk.id).where(Chunk.job_id == Job.id, predicates.chunk_has_failed_rows())
    return sa.and_(Job.kind.in_(BULK), Job.state.in_(CLAIMABLE), failed.exists())
