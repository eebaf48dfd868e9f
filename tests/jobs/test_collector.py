"""The garbage collector takes what no row names, and nothing that one names or soon will."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa

from jobs import collector, objects, purger
from jobs.collector import Report
from jobs.decisions.run_verdict import RunVerdict
from jobs.ledger import (
    collection_rounds,
    controls,
    deletions,
    files,
    registry,
    removals,
    uploads,
)
from jobs.objects import ObjectStore
from jobs.queries import storage
from jobs.results import reports
from jobs.retention import Piece
from jobs.states import JobState, RunState
from jobs.tables import Checkpoint, Chunk, File, Job, JobInput, Removal, Shard, StorageUsage
from tests.jobs.ledger.building import PROJECT, Ledger
from tests.jobs.ledger.training import Training
from tests.support.seaweed import BUCKET, S3

NONE = timedelta(0)


@pytest.fixture
def store(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[ObjectStore]:
    """A folder, unless the test asks for a bucket."""
    if getattr(request, "param", "folder") == "folder":
        yield objects.connect((tmp_path / "objects").as_uri())
    else:
        server: S3 = request.getfixturevalue("s3")
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield objects.connect(f"s3://{BUCKET}/{uuid4()}")
    with ledger.sessions.begin() as session:
        session.execute(sa.delete(Removal))
        session.execute(sa.update(Job).values(purge_at=None))


def collect(
    ledger: Ledger,
    store: ObjectStore,
    *,
    grace: timedelta = NONE,
    dry_run: bool = False,
    unknown: bool = False,
) -> Report:
    report = collector.collect(
        ledger.sessions, store, grace=grace, dry_run=dry_run, unknown=unknown
    )
    assert report is not None
    return report


def put(store: ObjectStore, *keys: str) -> None:
    for key in keys:
        store.put(key, b"bytes")


def left(store: ObjectStore) -> set[str]:
    return set(store.keys(""))


def bulk(ledger: Ledger, store: ObjectStore) -> tuple[str, set[str]]:
    """A bulk job that has succeeded, and the keys that its rows name."""
    job_id = ledger.running(5, 5)
    ledger.commit_all(job_id)
    ledger.set(job_id, state=JobState.FINALIZING)
    ledger.finish(job_id)
    named = {f"jobs/{job_id}/shards/000000-1.parquet", f"jobs/{job_id}/output/results-1.csv"}
    with ledger.sessions.begin() as session:
        session.execute(
            sa.update(Shard)
            .where(Shard.job_id == job_id)
            .values(object_key=f"jobs/{job_id}/shards/000000-1.parquet")
        )
        for chunk in session.scalars(sa.select(Chunk).where(Chunk.job_id == job_id)):
            chunk.part_key = f"jobs/{job_id}/parts/{chunk.first_row:012d}-{chunk.id}-1.parquet"
            named.add(chunk.part_key)
        extract = f"jobs/{job_id}/extracts/corpus-1.jsonl"
        session.add(
            JobInput(
                job_id=job_id,
                split="corpus",
                index=0,
                name="sql:news",
                version="1",
                bytes=5,
                object_key=extract,
                query={"text": "SELECT 1"},
            )
        )
        named.add(extract)
        output = {"file": f"jobs/{job_id}/output/results-1.csv", "rows": 10}
        session.execute(sa.update(Job).where(Job.id == job_id).values(output=output))
    put(store, *named)
    return job_id, named


def file(ledger: Ledger, store: ObjectStore, name: str) -> str:
    put(store, f"files/file-{name}")
    with ledger.sessions.begin() as session:
        files.add(
            session,
            file_id=f"file-{name}",
            project_id=PROJECT,
            filename="corpus.csv",
            purpose="batch",
            size=5,
            sha256=f"hash of {name}",
            object_key=f"files/file-{name}",
        )
    return f"file-{name}"


def garbage_of(job_id: str) -> set[str]:
    """What lost processes of an ended job may have left."""
    return {
        f"jobs/{job_id}/shards/000001-0.parquet",
        f"jobs/{job_id}/data/train-000000-1.parquet",
        f"jobs/{job_id}/extracts/corpus-0.jsonl",
        f"jobs/{job_id}/parts/000000000000-1-9.parquet",
        f"jobs/{job_id}/output/results-0.csv",
        f"jobs/{job_id}/checkpoints/000000010-1/rank-0/model.safetensors",
        reports.report_key(PROJECT, job_id=job_id, fence=7),
        f"models/{PROJECT}/news/{job_id}-7/model.safetensors",
    }


@pytest.mark.parametrize("store", ["folder", "s3"], indirect=True)
def test_of_an_ended_job_what_no_row_names_goes_and_the_rest_stays(
    ledger: Ledger, store: ObjectStore
) -> None:
    job_id, named = bulk(ledger, store)
    put(store, *garbage_of(job_id), "files/file-of-no-one", "notes.txt")
    dry = collect(ledger, store, dry_run=True)
    assert set(dry.garbage.keys) == garbage_of(job_id)
    assert (dry.removed, len(left(store))) == (0, len(named | garbage_of(job_id)) + 2)
    report = collect(ledger, store)
    assert report.removed == len(garbage_of(job_id))
    assert left(store) == named | {"files/file-of-no-one", "notes.txt"}
    assert set(report.unknown.keys) == {"files/file-of-no-one", "notes.txt"}


def test_what_is_younger_than_the_grace_period_stays(ledger: Ledger, store: ObjectStore) -> None:
    job_id, _ = bulk(ledger, store)
    put(store, *garbage_of(job_id))
    report = collect(ledger, store, grace=timedelta(hours=1))
    assert (report.garbage.objects, report.removed) == (0, 0)
    assert garbage_of(job_id) <= left(store)


@pytest.mark.parametrize("state", sorted(set(JobState) - {"succeeded", "failed"}))
def test_of_a_job_that_has_not_ended_nothing_goes(
    ledger: Ledger, store: ObjectStore, state: JobState
) -> None:
    job_id = ledger.running(5)
    ended = state in (JobState.CANCELLED, JobState.EXPIRED)
    ledger.set(job_id, state=state, finished_at=sa.func.now() if ended else None)
    put(store, *garbage_of(job_id))
    collect(ledger, store)
    assert left(store) == (set() if ended else garbage_of(job_id))
    ledger.set(job_id, state=JobState.CANCELLED, finished_at=sa.func.now())


def test_nothing_goes_of_an_ended_job_of_which_a_worker_holds_a_chunk(
    ledger: Ledger, store: ObjectStore
) -> None:
    job_id = ledger.running(5, 5)
    lease = ledger.claimed(ledger.live(job_id)[0].id)
    ledger.set(job_id, state=JobState.EXPIRED, finished_at=sa.func.now())
    put(store, *garbage_of(job_id))
    collect(ledger, store)
    assert left(store) == garbage_of(job_id)
    ledger.run_out(lease.chunk_id)
    collect(ledger, store)
    assert left(store) == garbage_of(job_id), "it may commit until the chunk is taken back"
    ledger.rescue()
    collect(ledger, store)
    assert left(store) == set()


def test_the_parts_that_a_retry_carries_over_stay(ledger: Ledger, store: ObjectStore) -> None:
    job_id, named = bulk(ledger, store)
    with ledger.sessions.begin() as session:
        session.execute(sa.update(Chunk).where(Chunk.job_id == job_id).values(rows_failed=1))
    with ledger.sessions.begin() as session:
        controls.retry(session, job_id, project_id=PROJECT)
    ledger.set(job_id, state=JobState.CANCELLED, finished_at=sa.func.now())
    collect(ledger, store)
    parts = {key for key in named if "/output/" not in key}
    assert left(store) == parts


def test_a_file_that_is_there_or_under_way_stays_and_one_that_was_removed_goes(
    ledger: Ledger, store: ObjectStore
) -> None:
    there, gone = file(ledger, store, "there"), file(ledger, store, "gone")
    with ledger.sessions.begin() as session:
        uploads.begin(
            session,
            file_id="file-begun",
            project_id=PROJECT,
            object_key="files/file-begun",
            duration=timedelta(seconds=-1),
        )
        files.delete(session, gone, project_id=PROJECT)
    put(store, "files/file-begun")
    collect(ledger, store)
    assert left(store) == {f"files/{there}", f"files/{gone}", "files/file-begun"}
    purger.purge_deleted(ledger.sessions, store)
    put(store, f"files/{gone}")
    collect(ledger, store)
    assert left(store) == {f"files/{there}", "files/file-begun"}


def test_the_object_of_an_upload_whose_bytes_were_there_before_goes(
    ledger: Ledger, store: ObjectStore
) -> None:
    first = file(ledger, store, "first")
    with ledger.sessions.begin() as session:
        files.add(
            session,
            file_id="file-again",
            project_id=PROJECT,
            filename="corpus.csv",
            purpose="batch",
            size=5,
            sha256="hash of first",
            object_key="files/file-again",
        )
    put(store, "files/file-again")
    collect(ledger, store)
    assert left(store) == {f"files/{first}"}


def test_checkpoints_that_can_be_resumed_from_stay_and_half_ones_go(
    ledger: Ledger, store: ObjectStore
) -> None:
    training = Training(ledger)
    job_id = training.job()
    lease = training.gang(job_id)[0]
    folder = f"jobs/{job_id}/checkpoints"
    whole = {f"{folder}/000000010-1/rank-0/a", f"{folder}/000000010-1/manifest.json"}
    half, old = f"{folder}/000000020-1/rank-0/a", f"{folder}/000000005-1/rank-0/a"
    for step in (5, 10):
        training.checkpoint(lease, step)
        with ledger.sessions.begin() as session:
            session.execute(
                sa.update(Checkpoint)
                .where(Checkpoint.job_id == job_id, Checkpoint.step == step)
                .values(
                    manifest_key=f"{folder}/{step:09d}-1/manifest.json",
                    deleted_at=sa.func.now() if step == 5 else None,
                )
            )
    put(store, *whole, half, old)
    collect(ledger, store)
    assert left(store) == whole | {half, old}
    training.conclude(lease.run_id, RunVerdict(RunState.FAILED, reason="bad"))
    collect(ledger, store)
    assert left(store) == whole


def test_the_files_of_a_version_stay_until_it_is_deleted(
    ledger: Ledger, store: ObjectStore
) -> None:
    job_id, named = bulk(ledger, store)
    kept, lost = (f"models/{PROJECT}/news/{job_id}-{run}/model.safetensors" for run in (2, 1))
    put(store, kept, lost)
    entry = {"path": "model.safetensors", "key": kept, "bytes": 5, "sha256": "0"}
    with ledger.sessions.begin() as session:
        registry.register(
            session,
            project_id=PROJECT,
            name="news",
            task="classify",
            kind="full",
            base=None,
            files=[entry],
            metrics={},
            lineage={},
            job_id=job_id,
        )
    collect(ledger, store)
    assert left(store) == named | {kept}
    with ledger.sessions.begin() as session:
        registry.delete_version(session, project_id=PROJECT, name="news", version=1)
    collect(ledger, store)
    assert left(store) == named


def test_what_comes_behind_the_back_of_a_deletion_or_a_removal_goes(
    ledger: Ledger, store: ObjectStore
) -> None:
    (deleted, _), (thinned, named) = bulk(ledger, store), bulk(ledger, store)
    with ledger.sessions.begin() as session:
        deletions.delete_job(session, deleted, project_id=PROJECT)
        job = controls.lock(session, thinned, project_id=PROJECT)
        removals.mark(session, job, [Piece.OUTPUTS])
    late = {f"jobs/{deleted}/parts/late.parquet", f"jobs/{thinned}/output/results-9.csv"}
    assert collect(ledger, store).removed == 1, "the purger removes the rest"
    purger.purge_deleted(ledger.sessions, store)
    put(store, *late)
    collect(ledger, store)
    assert left(store) == {key for key in named if "/output/" not in key}


def test_objects_of_unknown_owners_go_only_if_that_is_asked_for(
    ledger: Ledger, store: ObjectStore
) -> None:
    mine = {"jobs/job_0/parts/1.parquet", "files/file-0", "models/p/m/job_0-1/a"}
    put(store, *mine, "notes.txt")
    assert collect(ledger, store).removed == 0
    assert collect(ledger, store, unknown=True).removed == 3
    assert left(store) == {"notes.txt"}


def test_a_row_without_an_object_is_found_and_its_part_marked_for_a_retry(
    ledger: Ledger, store: ObjectStore
) -> None:
    with ledger.sessions.begin() as session:
        for table in (Chunk, Shard):
            session.execute(sa.delete(table))
        session.execute(sa.delete(File))
    job_id, named = bulk(ledger, store)
    lost = next(key for key in named if "/parts/" in key)
    store.delete(lost)
    for mark in (False, True):
        report = collect(ledger, store)
        collector.find_missing(ledger.sessions, store, report, mark=mark)
        assert [each.key for each in report.missing if each.user == job_id] == [lost]
        damaged = [chunk for chunk in ledger.live(job_id) if chunk.damage]
        assert len(damaged) == int(mark)
    with ledger.sessions.begin() as session:
        assert controls.retry(session, job_id, project_id=PROJECT) == 1
    ledger.set(job_id, state=JobState.CANCELLED, finished_at=sa.func.now())


def test_usage_is_counted_by_project_and_kind(ledger: Ledger, store: ObjectStore) -> None:
    _, named = bulk(ledger, store)
    file(ledger, store, "counted")
    collect(ledger, store)
    with ledger.sessions.begin() as session:
        usage = storage.usage(session, PROJECT)
        none = storage.usage(session, "another")
    found = {each.kind.value: (each.objects, each.bytes) for each in usage.kinds}
    assert found == {"files": (1, 5), "shards": (2, 10), "parts": (2, 10), "outputs": (1, 5)}
    assert len(named) == 5
    assert usage.measured_at is not None
    assert none.kinds == ()


def test_of_several_processes_one_is_at_a_round_and_the_next_comes_after_an_interval(
    ledger: Ledger,
) -> None:
    def claim(interval: timedelta, duration: timedelta = timedelta(seconds=60)) -> int | None:
        with ledger.sessions.begin() as session:
            return collection_rounds.claim(session, interval=interval, duration=duration)

    with ledger.sessions.begin() as session:
        session.execute(sa.text("DELETE FROM collection_rounds"))
    assert claim(timedelta(hours=1)) is None, "the first one comes an interval after the start"
    first = claim(NONE)
    assert first is not None
    assert claim(NONE) is None
    with ledger.sessions.begin() as session:
        session.execute(sa.text("UPDATE collection_rounds SET leased_until = now()"))
    second = claim(NONE)
    assert second == first + 1
    with ledger.sessions.begin() as session:
        assert not collection_rounds.renew(session, first, duration=NONE)
        assert collection_rounds.renew(session, second, duration=NONE)
        collection_rounds.end(session, second)
    assert claim(timedelta(hours=1)) is None


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE collection_rounds SET fence = fence + 1, lease_expires_at = now() WHERE id = 1",
        "UPDATE collection_rounds SET lease_expires_at = now() WHERE id = 1 AND fence = 0",
    ],
    ids=["claim", "renew"],
)
def test_a_process_that_does_not_know_of_folded_chunks_is_at_no_round(
    ledger: Ledger, statement: str
) -> None:
    """What version 0030 executes before a round, and before each of its batches."""
    with pytest.raises(sa.exc.ProgrammingError), ledger.sessions.begin() as session:
        session.execute(sa.text(statement))


def test_a_round_that_is_broken_off_records_nothing(ledger: Ledger, store: ObjectStore) -> None:
    job_id, _ = bulk(ledger, store)
    put(store, *garbage_of(job_id))
    with ledger.sessions.begin() as session:
        session.execute(sa.delete(StorageUsage))
    answers = iter([False])
    report = collector.collect(
        ledger.sessions, store, grace=NONE, dry_run=False, going=lambda: next(answers)
    )
    assert report is None
    assert garbage_of(job_id) <= left(store)
    with ledger.sessions.begin() as session:
        assert session.scalars(sa.select(StorageUsage)).all() == []


def test_an_upload_and_its_record_beside_the_collector_are_never_taken_apart(
    ledger: Ledger, store: ObjectStore
) -> None:
    """With no grace period at all: the order of listing and reading alone protects them."""
    over = threading.Event()
    rounds = 0

    def go_on() -> None:
        nonlocal rounds
        while not over.is_set():
            collect(ledger, store)
            rounds += 1

    thread = threading.Thread(target=go_on)
    thread.start()
    made = [receive(ledger, store, f"file-up{number}") for number in range(60)]
    over.set()
    thread.join()
    collect(ledger, store)
    assert rounds > 3
    assert left(store) == {f"files/{each}" for each in made}


def receive(ledger: Ledger, store: ObjectStore, file_id: str) -> str:
    """As the API does it: the lease, the object, the record."""
    facts: dict[str, Any] = {"project_id": PROJECT, "object_key": f"files/{file_id}"}
    with ledger.sessions.begin() as session:
        uploads.begin(session, file_id=file_id, duration=timedelta(seconds=60), **facts)
    put(store, f"files/{file_id}")
    with ledger.sessions.begin() as session:
        uploads.complete(session, file_id)
        files.add(
            session,
            file_id=file_id,
            filename="a.csv",
            purpose="batch",
            size=5,
            sha256=file_id,
            **facts,
        )
    return file_id
