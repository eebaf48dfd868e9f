"""Result rows in Postgres, by COPY, in the transaction that commits their chunk."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.tables import ResultRow

COLUMNS = [column.name for column in ResultRow.__table__.columns]
_COPY = f"COPY result_rows ({', '.join(COLUMNS)}) FROM STDIN"


def replace(
    session: Session, job_id: str, *, first_row: int, rows: int, results: Iterable[tuple[Any, ...]]
) -> None:
    """Replace the chunk's rows: delete those of an earlier attempt, then COPY.

    ``results`` are tuples in the order of ``COLUMNS``.
    """
    session.execute(
        sa.delete(ResultRow).where(
            ResultRow.job_id == job_id,
            ResultRow.row >= first_row,
            ResultRow.row < first_row + rows,
        )
    )
    connection = session.connection().connection.driver_connection
    assert connection is not None
    with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
        for result in results:
            copy.write_row(result)
