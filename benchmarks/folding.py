"""Folding: what the chunks of an ended job take up before and after, and what reading them costs.

``python -m benchmarks.folding [CHUNKS] [--verified N]``. A Postgres of its own and a folder. One
job of these chunks, without parts, is folded and unfolded: rows, bytes of the table after VACUUM
FULL, seconds, and the longest transaction of each. Then two like jobs with parts, of which one is
folded: seconds of ``jobs verify`` and of a page of chunks, in turns.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from api.stack import ports
from api.stack import postgres as postgres_server
from benchmarks import machine
from benchmarks.schedules import running
from jobs import database, folding, ids, objects
from jobs.database import Sessions
from jobs.kinds import ClassifySpec
from jobs.ledger import controls, plans, projects, removals, step_leases, submission
from jobs.ledger.plans import PlannedShard
from jobs.objects import ObjectStore
from jobs.queries import jobs as job_queries
from jobs.queries import storage
from jobs.results import chunk_folds, parts, verification
from jobs.retention import Piece
from jobs.settings import Settings
from jobs.states import JobStep
from jobs.tables import Chunk

CHUNKS = 200_000
VERIFIED = 2_000
CHUNK_ROWS = 20
SHARD_CHUNKS = 2_000
ROUNDS = 7
PROJECT = "benchmark"
LEASE = timedelta(minutes=30)

DONE = sa.text(
    """
    UPDATE chunks SET state = 'done', fence = 1, begun_at = now() - interval '1 hour',
        part_key = format('jobs/%s/parts/%s-%s-1.parquet', job_id,
            lpad(first_row::text, 12, '0'), id),
        part_bytes = 90000 + id % 1000, part_sha256 = encode(sha256(id::text::bytea), 'hex'),
        rows_failed = (id % 100 = 0)::int, tokens = rows * 30 + id % 50, seconds = 4 + random(),
        histogram = jsonb_build_object('world', id % 5, 'sports', id % 7, 'business', id % 3),
        errors = CASE WHEN id % 100 = 0 THEN jsonb_build_object('no_tokens', jsonb_build_object(
            'rows', 1, 'row', first_row, 'line', first_row + 1, 'message', 'the text is empty'))
            ELSE '{}' END,
        profile = jsonb_build_object('scores', jsonb_build_object('bins',
            jsonb_build_object('0.5', id % 5, '0.9', id % 7), 'total', random() * rows)),
        rows_answered = rows, rows_truncated = 0, rows_near_tie = 0, tokens_read = rows * 30,
        tokens_unknown = 0, done_at = now() - interval '1 hour'
    WHERE job_id = :job_id
    """
)
"""What the commits of workers write."""


def main() -> None:
    given = _arguments()
    home = Path(tempfile.mkdtemp(prefix="nightshift-bench-"))
    home.chmod(0o711)  # Postgres runs as another user when we are root
    try:
        with _postgres(home) as url:
            engine = database.connect(url)
            sessions = database.sessions(engine)
            with sessions.begin() as session:
                projects.ensure_key(session, project_id=PROJECT, key=PROJECT)
            settings = Settings(
                database_url=url,
                object_store_url=(home / "objects").as_uri(),
                allowed_inputs=["file:///"],
            )
            store = objects.connect(settings.object_store_url)
            figures = _large(engine, sessions, store, chunks=given.chunks)
            figures |= _asked(sessions, store, settings, home, chunks=given.verified)
            engine.dispose()
        about = {"chunks": given.chunks, "verified": given.verified, "chunk_rows": CHUNK_ROWS}
        machine.keep("folding", {**about, **figures})
    finally:
        shutil.rmtree(home)


def _large(
    engine: sa.Engine, sessions: Sessions, store: ObjectStore, *, chunks: int
) -> dict[str, Any]:
    """Rows, bytes and seconds of one large job."""
    job_id = _job(sessions, store, Path("/none.jsonl"), chunks=chunks, with_parts=False)
    before = _measured(engine, sessions)
    figures: dict[str, Any] = {f"before_{name}": value for name, value in before.items()}
    figures["seconds_of_the_job_before"] = _seconds(lambda: _look(sessions, job_id))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with _transactions(engine) as took:
        figures["seconds_to_fold"] = _seconds(lambda: _fold(sessions, store, job_id))
    figures["longest_transaction_of_folding_seconds"] = max(took)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
    figures["more_memory_for_folding_mib"] = grown / 1024
    figures |= {f"after_{name}": value for name, value in _measured(engine, sessions).items()}
    figures["seconds_of_the_job_after"] = _seconds(lambda: _look(sessions, job_id))
    with _transactions(engine) as took:
        figures["seconds_to_retry"] = _seconds(lambda: _retry(sessions, store, job_id))
    figures["longest_transaction_of_a_retry_seconds"] = max(took)
    with sessions.begin() as session:
        controls.cancel(session, job_id, project_id=PROJECT)
    return figures


def _asked(
    sessions: Sessions, store: ObjectStore, settings: Settings, home: Path, *, chunks: int
) -> dict[str, float]:
    """Medians of what is asked of a job with rows and of a folded one, in turns."""
    corpus = home / "corpus.jsonl"
    corpus.write_text("".join('{"text": "a short text"}\n' for _ in range(chunks * CHUNK_ROWS)))
    jobs = {
        name: _job(sessions, store, corpus, chunks=chunks, with_parts=True)
        for name in ("rows", "folded")
    }
    _fold(sessions, store, jobs["folded"])

    def verify(job_id: str) -> None:
        report = verification.verify(sessions, store, job_id, settings=settings)
        assert report.ok, report.problems

    questions: dict[str, Callable[[str], object]] = {
        "verify": verify,
        "page_of_chunks": lambda job_id: chunk_folds.page(
            sessions, store, job_id, limit=100, after=chunks * CHUNK_ROWS // 2
        ),
    }
    took: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for question, ask in questions.items():
            for name, job_id in jobs.items():
                seconds = _seconds(partial(ask, job_id))
                took.setdefault(f"{question}_of_{name}_median_seconds", []).append(seconds)
    return {name: statistics.median(each) for name, each in took.items()}


def _job(
    sessions: Sessions, store: ObjectStore, corpus: Path, *, chunks: int, with_parts: bool
) -> str:
    """A job that has succeeded, with these chunks."""
    spec = ClassifySpec.model_validate({"corpus": {"uri": corpus.as_uri()}, "model": "/model"})
    with sessions.begin() as session:
        job_id, _ = submission.accept(
            session, project_id=PROJECT, spec=spec, idempotency_key=ids.job()
        )
        lease = step_leases.claim(
            session, job_id, step=JobStep.PLAN, owner="benchmark", duration=LEASE
        )
        assert lease is not None
        plans.begin(session, lease, fingerprint="f", model_digest="m")
    for index, first in enumerate(range(0, chunks, SHARD_CHUNKS)):
        sizes = (CHUNK_ROWS,) * min(SHARD_CHUNKS, chunks - first)
        shard = PlannedShard(index, f"jobs/{job_id}/shards/{index}", first * CHUNK_ROWS, sizes)
        with sessions.begin() as session:
            plans.add_shard(session, lease, shard)
    with sessions.begin() as session:
        plans.complete(session, lease)
        session.execute(DONE, {"job_id": job_id})
        session.execute(
            sa.text(
                "UPDATE jobs SET state = 'succeeded', started_at = now() - interval '2 hours', "
                "finished_at = now() - interval '1 hour' WHERE id = :job_id"
            ),
            {"job_id": job_id},
        )
    if with_parts:
        _write_parts(sessions, store, job_id)
    return job_id


def _write_parts(sessions: Sessions, store: ObjectStore, job_id: str) -> None:
    with sessions.begin() as session:
        chunks = session.scalars(sa.select(Chunk).where(Chunk.job_id == job_id)).all()
        for chunk in chunks:
            assert chunk.part_key is not None
            rows = range(chunk.first_row, chunk.first_row + chunk.rows)
            table = pa.table(
                {
                    "row": list(rows),
                    "label": ["world"] * chunk.rows,
                    "score": [0.9] * chunk.rows,
                    "error_code": pa.nulls(chunk.rows, pa.string()),
                }
            )
            written = parts.write(store, chunk.part_key, table)
            chunk.part_sha256, chunk.part_bytes, chunk.rows_failed = (
                written.sha256,
                written.bytes,
                0,
            )


def _fold(sessions: Sessions, store: ObjectStore, job_id: str) -> None:
    with sessions.begin() as session:
        job = controls.lock(session, job_id, project_id=PROJECT)
        removals.mark(session, job, [Piece.CHUNKS])
    folding.fold_due(sessions, store, seconds=3600)


def _retry(sessions: Sessions, store: ObjectStore, job_id: str) -> None:
    folding.retried(
        sessions, store, lambda session: controls.retry(session, job_id, project_id=PROJECT)
    )


def _look(sessions: Sessions, job_id: str) -> None:
    with sessions.begin() as session:
        job_queries.get(session, job_id, project_id=PROJECT)


def _measured(engine: sa.Engine, sessions: Sessions) -> dict[str, int]:
    """What chunks take up when nothing in the table is free."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("VACUUM (FULL, ANALYZE) chunks"))
    with sessions.begin() as session:
        found = storage.chunk_table(session)
    return {"rows": found.rows, "bytes": found.bytes, "bytes_of_folds": found.folded_bytes}


@contextmanager
def _transactions(engine: sa.Engine) -> Iterator[list[float]]:
    """Seconds of each transaction."""
    took: list[float] = []
    begun: dict[int, float] = {}

    def begin(connection: sa.Connection) -> None:
        begun[id(connection)] = time.perf_counter()

    def end(connection: sa.Connection) -> None:
        took.append(time.perf_counter() - begun.pop(id(connection)))

    listeners = {"begin": begin, "commit": end, "rollback": end}
    for name, listener in listeners.items():
        sa.event.listen(engine, name, listener)
    try:
        yield took
    finally:
        for name, listener in listeners.items():
            sa.event.remove(engine, name, listener)


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


@contextmanager
def _postgres(home: Path) -> Iterator[str]:
    """The URL of a Postgres, migrated."""
    service, url = postgres_server.service(home, port=ports.choose(), log=home / "servers.log")
    with running(service):
        postgres_server.ensure_database(url)
        database.migrate(url)
        yield url


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("chunks", type=int, nargs="?", default=CHUNKS)
    parser.add_argument("--verified", type=int, default=VERIFIED, help="chunks of jobs with parts")
    return parser.parse_args()


if __name__ == "__main__":
    main()
