"""Jobs whose chunks fold, two chunks a fold, made by the ledger and a store alone."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa

from jobs import collector, folding
from jobs.errors import LeaseLost
from jobs.ledger import chunk_folds as ledger_folds
from jobs.ledger import controls, removals
from jobs.lookups import profiles
from jobs.objects import ObjectStore
from jobs.queries import chunks as chunk_queries
from jobs.queries import jobs as job_queries
from jobs.results import chunk_folds, parts
from jobs.results import pages as result_pages
from jobs.results.pages import ResultRows
from jobs.retention import Piece
from jobs.states import ChunkState, JobState
from jobs.tables import Chunk, ChunkFold, Removal
from tests.jobs.ledger.building import PROJECT, Ledger
from tests.jobs.ledger.chains import Chains

PROFILE = {"scores": {"bins": {"0.5": 3, "0.9": 2}, "total": 3.5}}
CHUNK_COLUMNS = (
    *("id", "first_row", "rows", "state", "crashes", "failures", "last_error", "damage"),
    *("rows_failed", "part_bytes", "part_sha256", "tokens", "seconds", "done_at"),
)


def ended(
    ledger: Ledger, store: ObjectStore, *sizes: int, whole: bool = True, **fields: Any
) -> str:
    """A job of an hour ago: rows failed of two chunks, one was split; its last is done if whole."""
    job_id = ledger.accept(**fields)
    Chains(ledger).settle()
    ledger.plan(job_id, sizes or (4, 4, 4, 4, 4))
    first, second, *others = ledger.live(job_id)
    for _ in range(2):
        ledger.crash(ledger.claimed(second.id))
    ledger.commit(ledger.claimed(first.id), failed=1)
    ledger.commit(ledger.claimed(others[0].id), failed=2, code="too_long")
    if whole:
        ledger.commit_all(job_id)
    past = sa.func.now() - timedelta(hours=1)
    with ledger.sessions.begin() as session:
        of_job = Chunk.job_id == job_id
        session.execute(sa.update(Chunk).where(of_job).values(begun_at=past, not_before=None))
        session.execute(
            sa.update(Chunk)
            .where(of_job, Chunk.state == ChunkState.DONE)
            .values(done_at=past, profile=PROFILE)
        )
    write_parts(ledger, store, job_id)
    if whole:
        ledger.set(job_id, state=JobState.FINALIZING)
        ledger.finish(job_id)
    else:
        ledger.set(job_id, state=JobState.FAILED, error_code="bad", finished_at=sa.func.now())
    return job_id


def write_parts(ledger: Ledger, store: ObjectStore, job_id: str) -> None:
    """Give each chunk that is done a part, with the key that a worker would give it."""
    with ledger.sessions.begin() as session:
        done = sa.select(Chunk).where(Chunk.job_id == job_id, Chunk.state == ChunkState.DONE)
        for chunk in session.scalars(done):
            _write_part(store, chunk)


def _write_part(store: ObjectStore, chunk: Chunk) -> None:
    """Its first rows failed."""
    chunk.part_key = parts.part_key(
        chunk.job_id, first_row=chunk.first_row, chunk_id=chunk.id, fence=chunk.fence
    )
    failed = chunk.rows_failed or 0
    good = chunk.rows - failed
    table = pa.table(
        {
            "row": list(range(chunk.first_row, chunk.first_row + chunk.rows)),
            "text": ["words"] * chunk.rows,
            "label": pa.array([None] * failed + ["good"] * good, pa.string()),
            "error_code": pa.array(["no_tokens"] * failed + [None] * good, pa.string()),
        }
    )
    written = parts.write(store, chunk.part_key, table)
    chunk.part_bytes, chunk.part_sha256 = written.bytes, written.sha256


def mark(ledger: Ledger, *job_ids: str) -> None:
    """What control does when the period is over; or lets the claim of a dead process run out."""
    with ledger.sessions.begin() as session:
        for job_id in job_ids:
            job = controls.lock(session, job_id, project_id=PROJECT)
            removals.mark(session, job, [Piece.CHUNKS])
        session.execute(
            sa.update(Removal)
            .where(Removal.job_id.in_(job_ids), Removal.purge_at.is_not(None))
            .values(purge_at=sa.func.now())
        )


def fold(ledger: Ledger, store: ObjectStore, *job_ids: str) -> int:
    mark(ledger, *job_ids)
    return folding.fold_due(ledger.sessions, store, seconds=60)


def retry(ledger: Ledger, store: ObjectStore, job_id: str) -> int:
    return folding.retried(
        ledger.sessions,
        store,
        lambda session: controls.retry(session, job_id, project_id=PROJECT),
    )


def collect(ledger: Ledger, store: ObjectStore) -> collector.Report:
    report = collector.collect(ledger.sessions, store, grace=timedelta(0), dry_run=False)
    assert report is not None
    return report


def rows(ledger: Ledger, job_id: str) -> list[dict[str, Any]]:
    """Every chunk that is a row, with every column."""
    with ledger.sessions.begin() as session:
        query = sa.select(Chunk.__table__).where(Chunk.job_id == job_id).order_by(Chunk.id)
        return [dict(row) for row in session.execute(query).mappings()]


def folds(ledger: Ledger, job_id: str) -> list[ChunkFold]:
    with ledger.sessions.begin() as session:
        query = sa.select(ChunkFold).where(ChunkFold.job_id == job_id)
        return list(session.scalars(query.order_by(ChunkFold.first_row)))


def answers(ledger: Ledger, store: ObjectStore, job_id: str) -> dict[str, Any]:
    """All that is asked of the chunks of an ended job."""
    with ledger.sessions.begin() as session:
        view = job_queries.get(session, job_id, project_id=PROJECT)
        profile = profiles.of_job(session, job_id)
    listed: dict[str, list[object]] = {}
    for from_row in (0, 7, 19):
        with ledger.sessions.begin() as session:
            found = list(chunk_queries.listed(session, job_id, from_row=from_row))
        behind = chunk_folds.parts(ledger.sessions, store, found)
        listed[f"parts from {from_row}"] = [
            part for part in behind if part.first_row + part.rows > from_row
        ]
    return {
        "counts": dataclasses.replace(view.counts, age_seconds=0.0),
        "histogram": view.histogram,
        "errors": view.row_errors,
        "profile": profile,
        "chunks": pages(ledger, store, job_id),
        "results": results(ledger, store, job_id, 7),
        **listed,
    }


def nothing() -> None:
    """What happens between two pages, if nothing else does."""


def pages(
    ledger: Ledger,
    store: ObjectStore,
    job_id: str,
    limit: int = 3,
    between: Callable[[], object] = nothing,
) -> list[tuple[object, ...]]:
    """Every chunk as it is shown, ``limit`` at a time."""
    shown: list[Chunk] = []
    more = True
    while more:
        after = shown[-1].first_row if shown else -1
        found, more = chunk_folds.page(ledger.sessions, store, job_id, limit=limit, after=after)
        assert len(found) == limit or not more
        shown += found
        between()
    return [tuple(getattr(chunk, name) for name in CHUNK_COLUMNS) for chunk in shown]


def results(
    ledger: Ledger,
    store: ObjectStore,
    job_id: str,
    limit: int,
    between: Callable[[], object] = nothing,
) -> list[ResultRows]:
    """Every page of results."""
    found: list[ResultRows] = []
    while not found or not found[-1].complete:
        from_row = found[-1].next_row if found else 0
        found.append(
            result_pages.page(ledger.sessions, store, job_id, from_row=from_row, limit=limit)
        )
        between()
    return found


@dataclasses.dataclass(frozen=True)
class Begun:
    """A fold whose object is written, and which does not count yet."""

    job_id: str
    key: str
    chunks: Any
    written: parts.WrittenObject

    def commit(self, ledger: Ledger) -> None:
        with ledger.sessions.begin() as session:
            ledger_folds.commit(
                session,
                self.job_id,
                self.chunks,
                key=self.key,
                sha256=self.written.sha256,
                size=self.written.bytes,
            )

    def refused(self, ledger: Ledger, reason: str) -> None:
        with pytest.raises(LeaseLost, match=reason):
            self.commit(ledger)


def begun(ledger: Ledger, store: ObjectStore, job_id: str) -> Begun:
    mark(ledger, job_id)
    key = chunk_folds.new_key(job_id)
    with ledger.sessions.begin() as session:
        chunks = ledger_folds.begin(session, job_id, key=key, duration=folding.CLAIM)
    assert chunks
    assert json.loads(chunks[0]["histogram"] or "{}") is not None
    return Begun(job_id, key, chunks, chunk_folds.write(store, key, chunks))
