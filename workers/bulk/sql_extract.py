"""The rows of a SQL source become an object of the job, which is then read as any other.

Its query runs once. The next planner of the job, and a recount of its rows, read that object: the
same rows, whatever has changed in the database since. The transaction there is as short as the
rows need to reach the object store, however long planning takes.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from jobs import sql_sources
from jobs.corpora.sql_rows import Bounds, SqlRows
from jobs.inputs import SQL, Input
from jobs.kinds import Corpus, SqlQuery
from jobs.ledger.step_leases import StepLease
from jobs.progress import Beat
from jobs.queries import inputs as queries
from jobs.results import parts
from jobs.sql_sources import SqlSource
from workers.context import Context


def extract(
    lease: StepLease, split: str, corpus: Corpus, query: SqlQuery, *, beat: Beat, context: Context
) -> Input:
    """Write the rows down. Raises ``CorpusRefused``, ``CorpusFailure``, ``StorageFault``."""
    name = query.source
    source = sql_sources.find(name, project_id=lease.project_id, settings=context.settings)
    with context.sessions.begin() as session:
        window = queries.window(
            session, lease.job_id, split=split, name=f"{SQL}{name}", since=corpus.since
        )
    bounds = Bounds(
        since=window.begins or query.since or source.begin,
        until=query.until or window.ends.astimezone(UTC).isoformat(),
    )
    rows = SqlRows(name, source, bounds, max_row_bytes=context.settings.max_row_bytes, beat=beat)
    key = parts.extract_key(lease.job_id, split, fence=lease.fence)
    digest, size = hashlib.sha256(), 0
    with context.store.writer(key) as file:
        for line in () if _is_empty(bounds) else rows.lines():
            digest.update(line)
            size += len(line)
            file.write(line)
    return Input(
        name=f"{SQL}{name}",
        version=f"{key}:{size}",
        bytes=size,
        object_key=key,
        sha256=digest.hexdigest(),
        rows=rows.rows,
        query={
            "text": source.query,
            "since": bounds.since,
            "until": bounds.until,
            "next": _next(source, bounds, rows),
        },
    )


def _next(source: SqlSource, bounds: Bounds, rows: SqlRows) -> str:
    """Where the next fire begins."""
    if source.cursor_column is not None:
        return rows.largest or bounds.since
    return bounds.since if _is_empty(bounds) else bounds.until


def _is_empty(bounds: Bounds) -> bool:
    """Whether the window ends before it begins, as that of a backfill behind a later night."""
    try:
        return datetime.fromisoformat(bounds.since) >= datetime.fromisoformat(bounds.until)
    except (ValueError, TypeError):  # not two times, or one without an offset
        return False
