"""The sums of ``jobs.queries.jobs.Counts`` over folded chunks, in the order of those over rows."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from jobs.lookups import chunk_folds
from jobs.tables import ChunkFold

_NUMBERS = (
    *(ChunkFold.rows, ChunkFold.rows_failed, ChunkFold.tokens, ChunkFold.seconds),
    *(ChunkFold.rows_checked, ChunkFold.rows_agreeing),
    *(ChunkFold.rows_answered, ChunkFold.rows_truncated, ChunkFold.rows_near_tie),
    *(ChunkFold.tokens_read, ChunkFold.tokens_unknown),
)


def summed() -> sa.Select[*tuple[Any, ...]]:
    """A row for each of the jobs ``job_ids`` that has folds: of folded chunks nothing moves."""
    return (
        sa.select(
            ChunkFold.job_id,
            _sum(ChunkFold.pending),
            *_none(sa.BigInteger(), 2),  # sent, failing
            sa.cast(sa.null(), sa.DateTime(timezone=True)),  # retry_at
            *_none(sa.BigInteger(), 2),  # leased, expired
            _sum(ChunkFold.done),
            *(_sum(number) for number in _NUMBERS),
            sa.cast(sa.null(), sa.Text),  # last_error
            *_none(sa.Double(), 6),  # of work_sums
        )
        .where(ChunkFold.job_id.in_(sa.bindparam("job_ids", expanding=True)), chunk_folds.written())
        .group_by(ChunkFold.job_id)
    )


def _sum(number: Any) -> sa.ColumnElement[Any]:
    return sa.cast(sa.func.sum(number), number.type)


def _none(of: Any, many: int) -> list[sa.ColumnElement[Any]]:
    return [sa.cast(sa.literal_column("0"), of) for _ in range(many)]
