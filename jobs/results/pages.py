"""Pages of live results in corpus order, resumable by row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from jobs import database
from jobs.database import Sessions
from jobs.lookups.chunk_folds import FoldedChunks
from jobs.objects import ObjectStore
from jobs.queries import chunks
from jobs.queries import jobs as job_queries
from jobs.queries.chunks import DonePart
from jobs.results import chunk_folds, integrity
from jobs.states import FINAL

PAGE_BYTES = 8 * 2**20
"""A page ends after the part that brings it over this size, even if more rows were requested."""


@dataclass(frozen=True)
class ResultRows:
    """Results in row order, up to the first row that is not done yet; an ended job skips gaps."""

    rows: list[dict[str, Any]]
    next_row: int
    complete: bool  # the job has ended and no row follows


@dataclass(frozen=True)
class _Plan:
    parts: list[DonePart | FoldedChunks]
    keep_text: bool
    to_the_end: bool  # the job has ended and no part follows these


def page(
    sessions: Sessions, store: ObjectStore, job_id: str, *, from_row: int, limit: int
) -> ResultRows:
    """Results from row ``from_row`` on, at most ``limit``.

    Rows of a running job end at the first gap; if the job has ended, gaps are skipped. The
    transaction ends before storage is read. Raises ``PartDamaged``.
    """
    with sessions.begin() as session:
        database.one_snapshot(session)
        plan = _plan(session, job_id, from_row=from_row, limit=limit)
    rows: list[dict[str, Any]] = []
    next_row, size = from_row, 0
    for part in chunk_folds.parts(sessions, store, plan.parts):
        if part.first_row + part.rows <= next_row:
            continue
        if len(rows) >= limit or size > PAGE_BYTES:
            return ResultRows(rows, next_row, complete=False)
        start = max(next_row, part.first_row)
        whole = integrity.read_part(sessions, store, part)
        table = whole.slice(start - part.first_row, limit - len(rows))
        rows += (table if plan.keep_text else table.drop_columns(["text"])).to_pylist()
        next_row, size = start + table.num_rows, size + table.nbytes
        if next_row < part.first_row + part.rows:
            return ResultRows(rows, next_row, complete=False)
    return ResultRows(rows, next_row, complete=plan.to_the_end)


def _plan(session: Session, job_id: str, *, from_row: int, limit: int) -> _Plan:
    """The parts that hold the requested rows, with every fold: which rows it has is in it."""
    job = job_queries.row(session, job_id)
    ended, keep_text = job.state in FINAL, bool(job.spec["output"]["keep_text"])
    parts: list[DonePart | FoldedChunks] = []
    next_row, missing = from_row, limit
    for part in chunks.listed(session, job_id, from_row=from_row):
        if isinstance(part, FoldedChunks):
            parts.append(part)
            continue
        if missing <= 0 or (part.first_row > next_row and not ended):
            return _Plan(parts, keep_text, to_the_end=False)
        parts.append(part)
        missing -= part.first_row + part.rows - max(next_row, part.first_row)
        next_row = part.first_row + part.rows
    return _Plan(parts, keep_text, to_the_end=ended)
