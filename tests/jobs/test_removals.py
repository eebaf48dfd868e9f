"""Pieces that retention has marked go from the store and from Postgres, and nothing else does."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from jobs import objects, purger
from jobs.ledger import controls, files, removals, telemetry
from jobs.objects import ObjectStore
from jobs.retention import Piece
from jobs.states import JobState
from jobs.tables import CheckpointPart, File, Job, LogLine, Removal, ResultRow, Shard
from tests.jobs.ledger.building import PROJECT, Ledger, result_rows
from tests.jobs.ledger.training import Training

OBJECTS = {
    Piece.SHARDS: ["shards/0.parquet", "data/train-0.parquet", "extracts/corpus-1.jsonl"],
    Piece.PARTS: ["parts/0-1.parquet", "parts/late.parquet"],
    Piece.OUTPUTS: ["output/results-1.csv", "output/manifest-1.json"],
    Piece.CHECKPOINTS: [
        "checkpoints/000000010-1/rank-0/a",
        "checkpoints/000000010-1/manifest.json",
    ],
}


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return objects.connect((tmp_path / "objects").as_uri())


def ended(ledger: Ledger, store: ObjectStore, *, failed: int = 0) -> str:
    job_id = ledger.running(5, 5, output={"postgres": True})
    for chunk in ledger.live(job_id):
        lease = ledger.claimed(chunk.id)
        ledger.commit(lease, failed=failed, results=result_rows(lease))
    ledger.set(job_id, state=JobState.FINALIZING)
    ledger.finish(job_id)
    for names in OBJECTS.values():
        for name in names:
            store.put(f"jobs/{job_id}/{name}", b"bytes")
    return job_id


def mark(ledger: Ledger, job_id: str, *pieces: Piece) -> None:
    with ledger.sessions.begin() as session:
        removals.mark(session, controls.lock(session, job_id, project_id=PROJECT), pieces)


def left(store: ObjectStore, job_id: str) -> set[str]:
    return {key.removeprefix(f"jobs/{job_id}/") for key in store.keys(f"jobs/{job_id}")}


def pending(ledger: Ledger) -> int:
    with ledger.sessions.begin() as session:
        query = sa.select(sa.func.count()).select_from(Removal)
        return session.scalar(query.where(Removal.purge_at.is_not(None))) or 0


@pytest.mark.parametrize("piece", OBJECTS)
def test_the_objects_of_a_piece_go_and_the_others_stay(
    ledger: Ledger, store: ObjectStore, piece: Piece
) -> None:
    job_id = ended(ledger, store)
    mark(ledger, job_id, piece)
    assert purger.purge_deleted(ledger.sessions, store) == 1
    others = {name for other, names in OBJECTS.items() if other is not piece for name in names}
    assert left(store, job_id) == others
    assert purger.purge_deleted(ledger.sessions, store) == 0


def test_the_rows_of_a_piece_go(ledger: Ledger, store: ObjectStore) -> None:
    job_id, other = ended(ledger, store), ended(ledger, store)
    mark(ledger, job_id, Piece.ROWS, Piece.SHARDS)
    purger.purge_deleted(ledger.sessions, store)
    with ledger.sessions.begin() as session:
        for table in (ResultRow, Shard):
            query = sa.select(table.job_id).where(table.job_id.in_([job_id, other])).distinct()
            assert session.scalars(query).all() == [other]


def test_log_lines_and_parts_of_checkpoints_go(ledger: Ledger, store: ObjectStore) -> None:
    training = Training(ledger)
    job_id = training.job()
    lease = training.gang(job_id)[0]
    training.checkpoint(lease, 10)
    with ledger.sessions.begin() as session:
        telemetry.add_log_lines(session, lease, ["a line"])
        session.add(CheckpointPart(run_id=lease.run_id, step=10, rank=0, files=[]))
    training.succeed(lease)
    mark(ledger, job_id, Piece.LOGS, Piece.CHECKPOINTS)
    assert training.newest(job_id) is None
    purger.purge_deleted(ledger.sessions, store)
    with ledger.sessions.begin() as session:
        for table in (LogLine, CheckpointPart):
            assert session.scalars(sa.select(table)).all() == []
    assert pending(ledger) == 0


def test_a_piece_waits_while_a_worker_holds_a_chunk_of_the_job(
    ledger: Ledger, store: ObjectStore
) -> None:
    job_id = ledger.running(5, 5)
    lease = ledger.claimed(ledger.live(job_id)[0].id)
    ledger.set(job_id, state=JobState.EXPIRED, finished_at=sa.func.now())
    mark(ledger, job_id, Piece.PARTS)
    store.put(f"jobs/{job_id}/parts/late.parquet", b"bytes")
    purger.purge_deleted(ledger.sessions, store)
    assert left(store, job_id) == {"parts/late.parquet"}
    ledger.run_out(lease.chunk_id)
    ledger.rescue()
    with ledger.sessions.begin() as session:
        session.execute(sa.update(Removal).values(purge_at=sa.func.now()))
    purger.purge_deleted(ledger.sessions, store)
    assert left(store, job_id) == set()


def test_what_a_retry_writes_is_not_taken_for_what_was_marked(
    ledger: Ledger, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = ended(ledger, store, failed=1)
    mark(ledger, job_id, Piece.OUTPUTS)
    really = store.keys

    def retry_meanwhile(prefix: str) -> object:
        monkeypatch.undo()
        with ledger.sessions.begin() as session:
            controls.retry(session, job_id, project_id=PROJECT)
        store.put(f"jobs/{job_id}/output/results-2.csv", b"new")
        return really(prefix)

    monkeypatch.setattr(store, "keys", retry_meanwhile)
    purger.purge_deleted(ledger.sessions, store)
    assert "output/results-2.csv" in left(store, job_id)
    ledger.set(job_id, state=JobState.CANCELLED, finished_at=sa.func.now())


def test_the_bytes_of_a_file_stay_while_another_file_has_them(
    ledger: Ledger, store: ObjectStore
) -> None:
    for name in ("one", "two"):
        upload(ledger, store, name, sha256="same")
    with ledger.sessions.begin() as session:
        keys = {row.id: row.object_key for row in session.scalars(sa.select(File))}
    assert keys == {"file-one": "files/file-one", "file-two": "files/file-one"}
    for name, is_there in (("one", True), ("two", False)):
        with ledger.sessions.begin() as session:
            files.delete(session, f"file-{name}", project_id=PROJECT)
        purger.purge_deleted(ledger.sessions, store)
        assert store.exists("files/file-one") is is_there


def upload(ledger: Ledger, store: ObjectStore, name: str, *, sha256: str) -> None:
    store.put(f"files/file-{name}", b"bytes")
    with ledger.sessions.begin() as session:
        files.add(
            session,
            file_id=f"file-{name}",
            project_id=PROJECT,
            filename="corpus.csv",
            purpose="batch",
            size=5,
            sha256=sha256,
            object_key=f"files/file-{name}",
        )


@pytest.fixture(autouse=True)
def _nothing_is_left(ledger: Ledger) -> object:
    yield
    with ledger.sessions.begin() as session:
        session.execute(sa.delete(Removal))
        session.execute(sa.update(Job).values(purge_at=None))
