"""What failed of a job: sums over its chunks, by code, each with its first row."""

from __future__ import annotations

import functools
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session, aliased

from jobs.decisions.failure_limit import FailureCounts, RowErrorGroup
from jobs.kinds import BULK
from jobs.states import CLAIMABLE, ChunkState
from jobs.tables import Chunk, Job

_DONE = Chunk.state == ChunkState.DONE
_FAILED = Chunk.rows_failed > 0
"""As the index of chunks with failed rows has it."""


def suspects() -> sa.Select[str]:
    """Jobs under way of which a row has failed."""
    failed = sa.select(Chunk.id).where(Chunk.job_id == Job.id, _FAILED)
    return sa.select(Job.id).where(Job.kind.in_(BULK), Job.state.in_(CLAIMABLE), failed.exists())


def tally(session: Session, job: Job) -> FailureCounts:
    """The facts for ``decisions.failure_limit``; codes only while the job has no result."""
    failed = session.scalar(
        sa.select(sa.func.sum(Chunk.rows_failed)).where(Chunk.job_id == job.id, _FAILED, _DONE)
    )
    has_results = _has_results(session, job.id)
    found = {} if has_results else {each.code: each.rows for each in by_code(session, job.id)}
    return FailureCounts(
        rows_total=job.rows_total,
        rows_failed=int(failed or 0),
        has_results=has_results,
        codes=found,
    )


def by_code(session: Session, job_id: str) -> list[RowErrorGroup]:
    """Error rows so far, the most frequent code first."""
    rows = session.execute(_by_code(), {"job_id": job_id}).all()
    return [
        RowErrorGroup(
            code=code,
            rows=count,
            row=first,
            line=example.get("line"),
            id=example.get("id"),
            message=example.get("message") or "",
        )
        for code, count, first, example in rows
    ]


def _has_results(session: Session, job_id: str) -> bool:
    """In the order of the corpus: of a job that does well it is the first chunk that tells."""
    found = session.scalar(
        sa.select(Chunk.id)
        .where(
            Chunk.job_id == job_id,
            Chunk.state != ChunkState.SPLIT,
            _DONE,
            Chunk.rows_failed < Chunk.rows,
        )
        .order_by(Chunk.first_row)
        .limit(1)
    )
    return found is not None


@functools.cache
def _by_code() -> sa.Select[*tuple[Any, ...]]:
    """Sums by code, and of each the example: that of the last chunk not behind the first row."""
    job_id: sa.BindParameter[str] = sa.bindparam("job_id")
    entry = sa.func.jsonb_each(Chunk.errors).table_valued("key", "value").render_derived()
    value = sa.type_coerce(entry.c.value, JSONB)
    sums = (
        sa.select(
            entry.c.key.label("code"),
            sa.cast(sa.func.sum(value["rows"].as_integer()), sa.BigInteger).label("rows"),
            sa.func.min(sa.cast(value["row"].as_string(), sa.BigInteger)).label("first"),
        )
        .select_from(Chunk)
        .join(entry, sa.true())
        .where(Chunk.job_id == job_id, _FAILED, _DONE)
        .group_by(entry.c.key)
        .subquery()
    )
    holder = aliased(Chunk)
    example = (
        sa.select(holder.errors.op("->")(sums.c.code).label("example"))
        .where(
            holder.job_id == job_id,
            holder.state != ChunkState.SPLIT,
            holder.first_row <= sums.c.first,
        )
        .order_by(holder.first_row.desc())
        .limit(1)
        .lateral()
    )
    return (
        sa.select(sums.c.code, sums.c.rows, sums.c.first, sa.type_coerce(example.c.example, JSONB))
        .join(example, sa.true())
        .order_by(sums.c.rows.desc(), sums.c.code)
    )
