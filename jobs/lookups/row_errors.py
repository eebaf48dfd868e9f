"""What failed of a job, by error code: sums over its chunks, each with its first row."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, aggregate_order_by
from sqlalchemy.orm import Session, aliased

from jobs.decisions.failure_limit import RowErrorGroup
from jobs.lookups import chunk_folds, predicates
from jobs.states import ChunkState
from jobs.tables import Chunk, ChunkFold


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
            source=example.get("source"),
        )
        for code, count, first, example in rows
    ]


@functools.cache
def _by_code() -> sa.Select[*tuple[Any, ...]]:
    """Rows and folds have each code once or more often; the example is that of the first row."""
    found = sa.union_all(_of_rows(), _of_folds()).subquery()
    rows = sa.func.sum(found.c.rows)
    first = sa.func.array_agg(aggregate_order_by(found.c.example, found.c.first))[1]
    return (
        sa.select(
            found.c.code,
            sa.cast(rows, sa.BigInteger),
            sa.func.min(found.c.first),
            sa.type_coerce(first, JSONB),
        )
        .group_by(found.c.code)
        .order_by(rows.desc(), found.c.code)
    )


def _of_rows() -> sa.Select[*tuple[Any, ...]]:
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
        .where(Chunk.job_id == job_id, predicates.chunk_has_failed_rows(), predicates.chunk_done())
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
    return sa.select(
        *(sums.c.code, sums.c.rows, sums.c.first),
        sa.type_coerce(example.c.example, JSONB).label("example"),
    ).join(example, sa.true())


def _of_folds() -> sa.Select[*tuple[Any, ...]]:
    job_id: sa.BindParameter[str] = sa.bindparam("job_id")
    entry = sa.func.jsonb_each(ChunkFold.errors).table_valued("key", "value").render_derived()
    value = sa.type_coerce(entry.c.value, JSONB)
    return (
        sa.select(
            entry.c.key,
            sa.cast(value["rows"].as_integer(), sa.BigInteger),
            sa.cast(value["row"].as_string(), sa.BigInteger),
            value,
        )
        .select_from(ChunkFold)
        .join(entry, sa.true())
        .where(ChunkFold.job_id == job_id, chunk_folds.written())
    )


def rows_by_code(session: Session, job_ids: Sequence[str]) -> dict[str, dict[str, int]]:
    """Of each job that has error rows, how many have which code; the most frequent first."""
    found: dict[str, dict[str, int]] = {}
    for job_id, code, rows in session.execute(_rows_by_code(), {"job_ids": job_ids}):
        found.setdefault(job_id, {})[code] = rows
    return found


@functools.cache
def _rows_by_code() -> sa.Select[*tuple[Any, ...]]:
    job_ids: sa.BindParameter[Sequence[str]] = sa.bindparam("job_ids", expanding=True)
    of_rows = _counted(
        Chunk,
        Chunk.job_id.in_(job_ids),
        predicates.chunk_has_failed_rows(),
        predicates.chunk_done(),
    )
    of_folds = _counted(ChunkFold, ChunkFold.job_id.in_(job_ids), chunk_folds.written())
    found = sa.union_all(of_rows, of_folds).subquery()
    rows = sa.cast(sa.func.sum(found.c.rows), sa.BigInteger)
    return (
        sa.select(found.c.job_id, found.c.code, rows)
        .group_by(found.c.job_id, found.c.code)
        .order_by(found.c.job_id, rows.desc(), found.c.code)
    )


def _counted(
    table: type[Chunk | ChunkFold], *conditions: sa.ColumnElement[bool]
) -> sa.Select[*tuple[Any, ...]]:
    """Job, code and rows of each code of each chunk or fold."""
    entry = sa.func.jsonb_each(table.errors).table_valued("key", "value").render_derived()
    value = sa.type_coerce(entry.c.value, JSONB)
    return (
        sa.select(
            *(table.job_id.label("job_id"), entry.c.key.label("code")),
            sa.cast(value["rows"].as_integer(), sa.BigInteger).label("rows"),
        )
        .select_from(table)
        .join(entry, sa.true())
        .where(*conditions)
    )
