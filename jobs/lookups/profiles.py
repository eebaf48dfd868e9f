"""How the results of a bulk job are spread, summed over its finished chunks."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.decisions.drift import Profile, Spread
from jobs.lookups import chunk_folds


def of_job(session: Session, job_id: str) -> Profile:
    """The profile of a job; chunks that an earlier version committed have no scores and lengths."""
    done = chunk_folds.done_chunks(job_id)
    sums = (sa.func.sum(done.c.rows), sa.func.sum(done.c.rows_failed))
    totals = (_total(done, "scores"), _total(done, "lengths"))
    rows, failed, scores, lengths = session.execute(sa.select(*sums, *totals)).one()
    failed = int(failed or 0)
    errors = {"failed": failed, "good": int(rows or 0) - failed}
    return Profile(
        labels=Spread(_bins(session, done, done.c.histogram)),
        scores=Spread(_bins(session, done, _of_profile(done, "scores")), scores),
        lengths=Spread(_bins(session, done, _of_profile(done, "lengths")), lengths),
        errors=Spread(errors, float(failed)),
    )


def _total(done: sa.Subquery, name: str) -> sa.ColumnElement[float | None]:
    total = sa.func.jsonb_extract_path_text(done.c.profile, name, "total")
    return sa.func.sum(sa.cast(total, sa.Double))


def _of_profile(done: sa.Subquery, name: str) -> sa.ColumnElement[Any]:
    return sa.func.jsonb_extract_path(done.c.profile, name, "bins")


def _bins(session: Session, done: sa.Subquery, histogram: Any) -> dict[str, int]:
    entry = sa.func.jsonb_each_text(histogram).table_valued("key", "value").render_derived()
    total = sa.cast(sa.func.sum(sa.cast(entry.c.value, sa.BigInteger)), sa.BigInteger)
    query = (
        sa.select(entry.c.key, total)
        .select_from(done)
        .join(entry, sa.true())
        .group_by(entry.c.key)
        .order_by(total.desc(), entry.c.key)
    )
    return {key: int(count) for key, count in session.execute(query)}
