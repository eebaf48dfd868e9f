"""Live results in the order of the corpus, resumable by row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from jobs import parts
from jobs.objects import ObjectStore
from jobs.queries import chunks
from jobs.states import FINAL
from jobs.tables import Job


@dataclass(frozen=True)
class ResultPage:
    """Consecutive results; they stop before the first row that is not done yet."""

    rows: list[dict[str, Any]]
    next_row: int
    complete: bool  # the job has ended and nothing follows


def page(
    session: Session, store: ObjectStore, job_id: str, *, from_row: int, limit: int
) -> ResultPage:
    """Results from row ``from_row`` on, at most ``limit``.

    Of a running job the rows up to the first gap; of one that has ended, gaps are passed over.
    """
    job = session.get_one(Job, job_id)
    ended = job.state in FINAL
    rows: list[dict[str, Any]] = []
    next_row = from_row
    for part in chunks.done_parts(session, job_id, from_row=from_row):
        if part.first_row > next_row and not ended:
            return ResultPage(rows, next_row, complete=False)
        start = max(next_row, part.first_row)
        table = parts.read(store, part.key).slice(start - part.first_row, limit - len(rows))
        rows += _rows(table, keep_text=job.spec["output"]["keep_text"])
        next_row = start + table.num_rows
        if len(rows) == limit:
            return ResultPage(rows, next_row, complete=False)
    return ResultPage(rows, next_row, complete=ended)


def _rows(table: Any, *, keep_text: bool) -> list[dict[str, Any]]:
    columns = table if keep_text else table.drop_columns(["text"])
    found: list[dict[str, Any]] = columns.to_pylist()
    return found
