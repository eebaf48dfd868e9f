"""How the results of a bulk job are spread, summed over its finished chunks."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.decisions.drift import Profile, Spread
from jobs.states import ChunkState
from jobs.tables import Chunk


def of_job(session: Session, job_id: str) -> Profile:
    """The profile of a job; chunks that an earlier version committed have no scores and lengths."""
    done = (Chunk.job_id == job_id, Chunk.state == ChunkState.DONE)
    sums = (sa.func.sum(Chunk.rows), sa.func.sum(Chunk.rows_failed))
    found = session.execute(sa.select(*sums, _total("scores"), _total("lengths")).where(*done))
    rows, failed, scores, lengths = found.one()
    failed = int(failed or 0)
    errors = {"failed": failed, "good": int(rows or 0) - failed}
    return Profile(
        labels=Spread(_bins(session, Chunk.histogram, done)),
        scores=Spread(_bins(session, _of_profile("scores"), done), scores),
        lengths=Spread(_bins(session, _of_profile("lengths"), done), lengths),
        errors=Spread(errors, float(failed)),
    )


def _total(name: str) -> sa.ColumnElement[float | None]:
    total = sa.func.jsonb_extract_path_text(Chunk.profile, name, "total")
    return sa.func.sum(sa.cast(total, sa.Double))


def _of_profile(name: str) -> sa.ColumnElement[Any]:
    return sa.func.jsonb_extract_path(Chunk.profile, name, "bins")


def _bins(
    session: Session, histogram: Any, done: tuple[sa.ColumnElement[bool], ...]
) -> dict[str, int]:
    entry = sa.func.jsonb_each_text(histogram).table_valued("key", "value").render_derived()
    total = sa.cast(sa.func.sum(sa.cast(entry.c.value, sa.BigInteger)), sa.BigInteger)
    query = (
        sa.select(entry.c.key, total)
        .select_from(Chunk)
        .join(entry, sa.true())
        .where(*done)
        .group_by(entry.c.key)
        .order_by(total.desc(), entry.c.key)
    )
    return {key: int(count) for key, count in session.execute(query)}
