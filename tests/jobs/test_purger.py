"""What belongs to a deleted job goes, whatever dies in between, and nothing else does."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from jobs import kinds, objects, purger
from jobs.decisions.run_verdict import RunVerdict
from jobs.errors import Conflict, NotFound, StorageAway
from jobs.ledger import controls, deletions, files, registry, submission, telemetry
from jobs.objects import ObjectStore
from jobs.queries import files as file_queries
from jobs.queries import jobs as job_queries
from jobs.results import reports
from jobs.states import FINAL, JobState, RunState
from jobs.tables import Base, File, Host, Job, ModelVersion
from tests.jobs.ledger.building import OTHER, PROJECT, Ledger, result_rows
from tests.jobs.ledger.training import Training
from tests.support.waiting import wait_until

UNFINISHED = sorted(frozenset(JobState) - FINAL)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return objects.connect((tmp_path / "objects").as_uri())


@pytest.fixture
def training(ledger: Ledger) -> Iterator[Training]:
    yield Training(ledger)
    with ledger.sessions.begin() as session:
        session.execute(sa.update(Job).values(purge_at=None))


def upload(
    ledger: Ledger,
    store: ObjectStore,
    name: str,
    *,
    project: str = PROJECT,
    sha256: str | None = None,
) -> str:
    file_id = f"file-{name}"
    store.put(f"files/{file_id}", b"bytes")
    with ledger.sessions.begin() as session:
        files.add(
            session,
            file_id=file_id,
            project_id=project,
            filename="a person's corpus.csv",
            purpose="batch",
            size=5,
            sha256=sha256 or f"hash of {name}",
            object_key=f"files/{file_id}",
        )
    return file_id


def ended(ledger: Ledger, store: ObjectStore, **fields: Any) -> str:
    """A bulk job that has succeeded, with rows in every table and objects of every sort."""
    job_id = ledger.running(5, 5, output={"postgres": True}, **fields)
    for chunk in ledger.live(job_id):
        lease = ledger.claimed(chunk.id)
        ledger.commit(lease, results=result_rows(lease))
    ledger.set(job_id, state=JobState.FINALIZING)
    ledger.finish(job_id)
    for key in ("shards/0.parquet", "parts/0-1.parquet", "parts/late.parquet", "output/a.csv"):
        store.put(f"jobs/{job_id}/{key}", b"bytes")
    return job_id


def delete(ledger: Ledger, job_id: str, *, project: str = PROJECT) -> None:
    with ledger.sessions.begin() as session:
        deletions.delete_job(session, job_id, project_id=project)


def delete_file(ledger: Ledger, file_id: str, *, project: str = PROJECT) -> None:
    with ledger.sessions.begin() as session:
        files.delete(session, file_id, project_id=project)


def rows_of(ledger: Ledger, job_id: str) -> dict[str, int]:
    """Rows by table that name the job, or one of its runs."""
    found = {}
    with ledger.sessions.begin() as session:
        for table in Base.metadata.sorted_tables:
            if "job_id" in table.c:
                query = sa.select(sa.func.count()).select_from(table)
                found[table.name] = session.scalar(query.where(table.c.job_id == job_id)) or 0
        for name in ("ranks", "checkpoint_parts"):
            of_runs = sa.text(
                f"SELECT count(*) FROM {name} LEFT JOIN runs ON runs.id = run_id "
                "WHERE runs.id IS NULL OR job_id = :job"
            )
            found[name] = session.scalar(of_runs, {"job": job_id}) or 0
    return {name: count for name, count in found.items() if count}


def test_a_deleted_job_is_gone_at_once_and_its_rows_and_objects_with_the_next_purge(
    ledger: Ledger, store: ObjectStore
) -> None:
    job_id, other = ended(ledger, store), ended(ledger, store)
    delete(ledger, job_id)
    with ledger.sessions.begin() as session, pytest.raises(NotFound):
        job_queries.get(session, job_id, project_id=PROJECT)
    assert purger.purge_deleted(ledger.sessions, store) == 1
    assert rows_of(ledger, job_id) == {}
    assert list(store.keys(f"jobs/{job_id}")) == []
    assert set(rows_of(ledger, other)) == {"chunks", "events", "result_rows", "shards"}
    assert len(list(store.keys(f"jobs/{other}"))) == 4
    tombstone = ledger.job(job_id)
    assert (tombstone.spec, tombstone.output, tombstone.purge_at) == ({}, None, None)
    assert purger.purge_deleted(ledger.sessions, store) == 0


@pytest.mark.parametrize("state", UNFINISHED)
def test_a_job_that_has_not_ended_is_not_deleted(ledger: Ledger, state: JobState) -> None:
    job_id = ledger.running(5)
    ledger.set(job_id, state=state)
    with pytest.raises(Conflict, match=f"{job_id} is {state}: delete it when it has ended") as hit:
        delete(ledger, job_id)
    assert hit.value.code == "job_not_ended"
    ledger.set(job_id, state=JobState.CANCELLED, finished_at=sa.func.now())


def test_another_projects_job_or_one_that_is_deleted_is_as_if_it_did_not_exist(
    ledger: Ledger, store: ObjectStore
) -> None:
    job_id = ended(ledger, store, project=OTHER)
    with pytest.raises(NotFound, match=f"no job '{job_id}' in this project"):
        delete(ledger, job_id)
    delete(ledger, job_id, project=OTHER)
    for operation in (deletions.delete_job, controls.retry, controls.cancel, job_queries.get):
        with ledger.sessions.begin() as session, pytest.raises(NotFound):
            operation(session, job_id, project_id=OTHER)


def test_the_idempotency_key_of_a_deleted_job_makes_a_new_one(
    ledger: Ledger, store: ObjectStore
) -> None:
    job_id = ended(ledger, store, key="nightly")
    delete(ledger, job_id)
    again = ledger.accept(key="nightly", output={"postgres": True})
    assert again != job_id
    ledger.set(again, state=JobState.CANCELLED, finished_at=sa.func.now())


def test_a_listing_goes_on_behind_a_job_that_was_deleted_meanwhile(
    ledger: Ledger, store: ObjectStore
) -> None:
    made = [ended(ledger, store, project=OTHER) for _ in range(3)]
    delete(ledger, made[1], project=OTHER)
    purger.purge_deleted(ledger.sessions, store)
    with ledger.sessions.begin() as session:
        rest, _ = job_queries.page(session, project_id=OTHER, limit=10, after=made[1])
        every, _ = job_queries.page(session, project_id=OTHER, limit=2)
    assert rest[0].job.id == made[0]
    assert [view.job.id for view in every] == [made[2], made[0]]


def test_of_a_fine_tune_its_runs_go_and_its_version_stays(
    training: Training, ledger: Ledger, store: ObjectStore
) -> None:
    job_id = training.job(model="kept")
    first = training.gang(job_id)[0]
    training.checkpoint(first, 10)
    training.conclude(first.run_id, RunVerdict(RunState.PREEMPTED, reason="moved"))
    with ledger.sessions.begin() as session:
        session.execute(sa.update(Job).where(Job.id == job_id).values(not_before=None))
    lease = training.gang(job_id)[0]
    training.checkpoint(lease, 20, best=True)
    kept = f"models/{PROJECT}/kept/{job_id}-2/model.safetensors"
    lost = f"models/{PROJECT}/kept/{job_id}-1/model.safetensors"
    report = reports.report_key(PROJECT, job_id=job_id, fence=2)
    mine = [f"jobs/{job_id}/checkpoints/000000020-2/a", f"jobs/{job_id}/data/train.parquet"]
    for key in (kept, lost, report, *mine):
        store.put(key, b"bytes")
    with ledger.sessions.begin() as session:
        telemetry.add_points(session, lease, [(1, {"loss": 0.5})])
        telemetry.add_log_lines(session, lease, ["a line"])
        registry.register(
            session,
            project_id=PROJECT,
            name="kept",
            task="classify",
            kind="full",
            base=None,
            files=[{"path": "model.safetensors", "key": kept, "bytes": 5, "sha256": "0"}],
            metrics={},
            lineage={"job": job_id},
            job_id=job_id,
        )
    training.conclude(lease.run_id, RunVerdict(RunState.FAILED, reason="bad"))
    delete(ledger, job_id)
    assert purger.purge_deleted(ledger.sessions, store) >= 1
    assert rows_of(ledger, job_id) == {"model_versions": 1}
    assert [key for key in (kept, lost, report, *mine) if store.exists(key)] == [kept]
    with ledger.sessions.begin() as session:
        assert session.scalar(sa.select(ModelVersion.deleted_at)) is None
        assert session.scalars(sa.select(Host.run_id).where(Host.run_id.is_not(None))).all() == []


def test_a_job_of_which_a_worker_holds_a_chunk_is_removed_when_the_lease_is_over(
    ledger: Ledger, store: ObjectStore
) -> None:
    job_id = ledger.running(5, 5)
    lease = ledger.claimed(ledger.live(job_id)[0].id)
    ledger.set(job_id, state=JobState.EXPIRED, finished_at=sa.func.now())
    delete(ledger, job_id)
    store.put(f"jobs/{job_id}/parts/late.parquet", b"bytes")
    assert purger.purge_deleted(ledger.sessions, store) >= 1
    assert store.exists(f"jobs/{job_id}/parts/late.parquet")
    ledger.run_out(lease.chunk_id)
    ledger.set(job_id, purge_at=sa.func.now())
    assert purger.purge_deleted(ledger.sessions, store) >= 1
    assert not store.exists(f"jobs/{job_id}/parts/late.parquet")
    assert rows_of(ledger, job_id) == {}
    assert ledger.claim(lease.chunk_id) is None


def test_a_store_that_fails_is_asked_again_later_and_keeps_no_other_job_waiting(
    ledger: Ledger, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck, other = ended(ledger, store), ended(ledger, store)
    delete(ledger, stuck)
    delete(ledger, other)
    really = store.delete_folder

    def delete_folder(prefix: str, **options: Any) -> int:
        if stuck in prefix:
            raise StorageAway("full")
        return really(prefix, **options)

    monkeypatch.setattr(store, "delete_folder", delete_folder)
    assert purger.purge_deleted(ledger.sessions, store) >= 2
    assert rows_of(ledger, other) == {}
    assert "chunks" in rows_of(ledger, stuck)
    monkeypatch.undo()
    assert purger.purge_deleted(ledger.sessions, store) == 0, "it has a pause"
    ledger.set(stuck, purge_at=sa.func.now())
    assert purger.purge_deleted(ledger.sessions, store) >= 1
    assert rows_of(ledger, stuck) == {}


SWEEP = """
import os, signal, sys
from jobs import database, objects, purger
from jobs.ledger import deletions
deletions.BATCH = 2
steps, last = 0, int(sys.argv[3])
def die(*_):
    global steps
    steps += 1
    if steps > last:
        os.kill(os.getpid(), signal.SIGKILL)
sys.setprofile(lambda frame, event, _: die() if event == "return" and frame.f_code.co_name in
    ("delete_all", "delete_folder", "remove_rows", "postpone_if_busy", "claim_job") else None)
purger.purge_deleted(database.sessions(database.connect(sys.argv[1])), objects.connect(sys.argv[2]))
"""


@pytest.mark.parametrize("steps", [0, 2, 4, 7])
def test_a_process_that_is_killed_in_the_middle_leaves_work_that_the_next_one_ends(
    ledger: Ledger, tmp_path: Path, store: ObjectStore, steps: int
) -> None:
    job_id = ended(ledger, store)
    delete(ledger, job_id)
    url = (tmp_path / "objects").as_uri()
    process = subprocess.run(
        [sys.executable, "-c", SWEEP, ledger.url, url, str(steps)], check=False, timeout=60
    )
    assert process.returncode == -signal.SIGKILL
    assert ledger.job(job_id).deleted_at is not None
    ledger.set(job_id, purge_at=sa.func.now())
    assert purger.purge_deleted(ledger.sessions, store) >= 1
    assert rows_of(ledger, job_id) == {}
    assert list(store.keys(f"jobs/{job_id}")) == []


def test_two_purges_at_once_do_no_harm(ledger: Ledger, store: ObjectStore) -> None:
    made = [ended(ledger, store) for _ in range(6)]
    for job_id in made:
        delete(ledger, job_id)
    threads = [
        threading.Thread(target=purger.purge_deleted, args=(ledger.sessions, store))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [rows_of(ledger, job_id) for job_id in made] == [{}] * 6


def test_a_file_that_a_job_under_way_needs_is_not_deleted(
    ledger: Ledger, store: ObjectStore
) -> None:
    file_id = upload(ledger, store, "needed")
    job_id = ledger.accept(corpus={"file": file_id})
    with pytest.raises(Conflict, match=f"{job_id}, which is queued, needs it") as hit:
        delete_file(ledger, file_id)
    assert hit.value.code == "file_in_use"
    ledger.set(job_id, state=JobState.CANCELLED, finished_at=sa.func.now())
    delete_file(ledger, file_id)
    with ledger.sessions.begin() as session, pytest.raises(NotFound):
        file_queries.get(session, file_id, project_id=PROJECT)
    assert purger.purge_deleted(ledger.sessions, store) >= 1
    assert not store.exists(f"files/{file_id}")
    with ledger.sessions.begin() as session:
        assert session.get_one(File, file_id).filename == ""


@pytest.mark.parametrize(
    "fields",
    [
        {"validation": {"file": "file-one"}},
        {"test": {"file": "file-two"}},
        {"promote": {"alias": "champion", "corpus": {"file": "file-three"}}},
    ],
    ids=["validation", "test", "promotion"],
)
def test_every_corpus_of_a_fine_tune_is_needed(
    training: Training, ledger: Ledger, store: ObjectStore, fields: dict[str, Any]
) -> None:
    for name in ("one", "two", "three"):
        if f"file-{name}" in repr(fields):
            file_id = upload(ledger, store, name)
    job_id = training.accept(**fields)
    with pytest.raises(Conflict, match=job_id):
        delete_file(ledger, file_id)
    ledger.set(job_id, state=JobState.CANCELLED, finished_at=sa.func.now())


def test_a_job_cannot_be_submitted_or_planned_again_over_a_deleted_file(
    ledger: Ledger, store: ObjectStore
) -> None:
    file_id = upload(ledger, store, "forgotten")
    job_id = ledger.accept(corpus={"file": file_id})
    ledger.set(job_id, state=JobState.CANCELLED, finished_at=sa.func.now())
    delete_file(ledger, file_id)
    with pytest.raises(NotFound) as hit:
        ledger.accept(corpus={"file": file_id})
    assert (hit.value.code, hit.value.param) == ("file_not_found", "corpus.file")
    with ledger.sessions.begin() as session, pytest.raises(NotFound) as again:
        controls.retry(session, job_id, project_id=PROJECT)
    assert again.value.code == "file_not_found"


def test_a_file_is_not_deleted_under_a_submission_that_has_just_looked_it_up(
    ledger: Ledger, store: ObjectStore
) -> None:
    file_id = upload(ledger, store, "raced")
    outcome: list[BaseException | None] = []

    def remove() -> None:
        try:
            delete_file(ledger, file_id)
            outcome.append(None)
        except Conflict as conflict:
            outcome.append(conflict)

    spec = {"kind": "classify", "corpus": {"file": file_id}, "model": "/model"}
    thread = threading.Thread(target=remove)
    with ledger.sessions.begin() as session:
        submission.accept(session, project_id=PROJECT, spec=kinds.parse(spec), idempotency_key=None)
        thread.start()
        wait_until(lambda: waits_for_a_lock(ledger), seconds=60)
    thread.join()
    assert isinstance(outcome[0], Conflict)


def waits_for_a_lock(ledger: Ledger) -> bool:
    query = sa.text(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    with ledger.sessions.begin() as session:
        return bool(session.scalar(query))
