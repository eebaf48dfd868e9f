"""Chunks that fold into objects: every answer stays as it was, whatever dies in between."""

from __future__ import annotations

import contextlib

import pytest
import sqlalchemy as sa

from jobs import collector, folding, purger
from jobs.errors import Conflict, Damaged, JobFolded
from jobs.ledger import chunk_folds as ledger_folds
from jobs.ledger import controls, damage, deletions
from jobs.lookups import chunk_folds as lookup
from jobs.objects import ObjectStore
from jobs.queries import storage
from jobs.results import parts
from jobs.retention import Piece
from jobs.states import ChunkState, JobState
from jobs.tables import Chunk, ChunkFold, FoldedDamage, Removal, Shard
from tests.jobs.folded_jobs import (
    answers,
    begun,
    collect,
    ended,
    fold,
    folds,
    mark,
    pages,
    retry,
    rows,
    write_parts,
)
from tests.jobs.ledger.building import PROJECT, Ledger
from tests.support.dying import Died, at_boundaries, dying_at

pytestmark = pytest.mark.usefixtures("small_folds")


@pytest.mark.parametrize("whole", [True, False])
def test_a_folded_job_has_no_rows_and_the_same_answers(
    ledger: Ledger, store: ObjectStore, *, whole: bool
) -> None:
    job_id, other = ended(ledger, store, whole=whole), ended(ledger, store)
    before, as_rows = answers(ledger, store, job_id), rows(ledger, job_id)
    assert fold(ledger, store, job_id) == len(as_rows) == 7
    assert rows(ledger, job_id) == []
    assert len(rows(ledger, other)) == 7
    assert sum(each.chunks for each in folds(ledger, job_id)) == 7
    assert answers(ledger, store, job_id) == before
    assert fold(ledger, store, job_id) == 0
    folding.unfold(ledger.sessions, store, job_id)
    assert rows(ledger, job_id) == as_rows
    assert answers(ledger, store, job_id) == before


def test_a_turn_ends_after_its_time_and_the_next_one_goes_on(
    ledger: Ledger, store: ObjectStore
) -> None:
    job_id = ended(ledger, store)
    before = answers(ledger, store, job_id)
    mark(ledger, job_id)
    for left in (5, 3, 1, 0, 0):
        folding.fold_due(ledger.sessions, store, seconds=0)
        assert len(rows(ledger, job_id)) == left
        assert answers(ledger, store, job_id) == before
    with ledger.sessions.begin() as session:
        found = session.get_one(Removal, (job_id, Piece.CHUNKS))
        assert found.purge_at is None, "there is nothing left to do"


def boundaries(ledger: Ledger, store: ObjectStore, job_id: str) -> int:
    reached: list[int] = []
    mark(ledger, job_id)
    with at_boundaries(ledger.engine, reached.append):
        folding.fold_due(ledger.sessions, store, seconds=60)
    return len(reached)


@pytest.mark.slow
def test_a_process_that_dies_at_any_boundary_while_it_folds_loses_nothing(
    ledger: Ledger, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_folds, "CHUNKS", 3)
    sizes = (4, 4, 4)
    number = boundaries(ledger, store, ended(ledger, store, *sizes))
    assert number > 20
    for boundary in range(1, number + 1):
        job_id = ended(ledger, store, *sizes)
        before, as_rows = answers(ledger, store, job_id), rows(ledger, job_id)
        mark(ledger, job_id)
        with contextlib.suppress(Died), dying_at(ledger.engine, boundary):
            folding.fold_due(ledger.sessions, store, seconds=60)
        collect(ledger, store)
        assert answers(ledger, store, job_id) == before, boundary
        fold(ledger, store, job_id)
        assert rows(ledger, job_id) == []
        assert collect(ledger, store).garbage.objects <= 1, "the object that the dead one wrote"
        folding.unfold(ledger.sessions, store, job_id)
        assert rows(ledger, job_id) == as_rows, boundary


@pytest.mark.slow
def test_a_process_that_dies_at_any_boundary_of_a_retry_leaves_the_job_folded_or_retried(
    ledger: Ledger, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_folds, "CHUNKS", 3)
    sizes, boundary, died = (4, 4, 4), 0, True
    while died:
        boundary += 1
        job_id, twin = (ended(ledger, store, *sizes, whole=False) for _ in range(2))
        before = answers(ledger, store, job_id)
        fold(ledger, store, job_id)
        died = dies_in_retry(ledger, store, job_id, boundary)
        if ledger.job(job_id).state is JobState.FAILED:
            assert answers(ledger, store, job_id) == before, boundary
            collect(ledger, store)
            assert retry(ledger, store, job_id) == retry(ledger, store, twin)
        else:
            retry(ledger, store, twin)
        assert opened(ledger, job_id) == opened(ledger, twin), boundary
        assert folds(ledger, job_id) == []
        for each in (job_id, twin):
            ledger.set(each, state=JobState.CANCELLED, finished_at=sa.func.now())
    assert boundary > 20


def dies_in_retry(ledger: Ledger, store: ObjectStore, job_id: str, boundary: int) -> bool:
    try:
        with dying_at(ledger.engine, boundary):
            retry(ledger, store, job_id)
    except Died:
        return True
    return False


def opened(ledger: Ledger, job_id: str) -> list[tuple[object, ...]]:
    """What of each chunk says whether it is computed again, and what is carried over."""
    return [
        (each["first_row"], each["state"], each["rows_failed"], each["retried_part"] is not None)
        for each in rows(ledger, job_id)
    ]


def test_a_retry_computes_only_what_is_missing(ledger: Ledger, store: ObjectStore) -> None:
    job_id = ended(ledger, store)
    fold(ledger, store, job_id)
    with ledger.sessions.begin() as session, pytest.raises(JobFolded):
        controls.retry(session, job_id, project_id=PROJECT)
    assert rows(ledger, job_id) == []
    assert retry(ledger, store, job_id) == 2
    pending = [row["first_row"] for row in rows(ledger, job_id) if row["state"] == "pending"]
    assert pending == [0, 8]
    ledger.commit_all(job_id)
    write_parts(ledger, store, job_id)
    ledger.set(job_id, state=JobState.FINALIZING)
    ledger.finish(job_id)
    assert answers(ledger, store, job_id)["errors"] == []


def test_a_job_without_failed_rows_stays_folded(ledger: Ledger, store: ObjectStore) -> None:
    job_id = ended(ledger, store)
    with ledger.sessions.begin() as session:
        of_job = sa.update(Chunk).where(Chunk.job_id == job_id, Chunk.rows_failed > 0)
        session.execute(of_job.values(rows_failed=0))
    fold(ledger, store, job_id)
    with pytest.raises(Conflict) as refused:
        retry(ledger, store, job_id)
    assert refused.value.code == "nothing_to_retry"
    assert rows(ledger, job_id) == []


def test_a_part_that_is_found_damaged_is_computed_again(ledger: Ledger, store: ObjectStore) -> None:
    job_id = ended(ledger, store)
    good = next(row for row in rows(ledger, job_id) if row["rows_failed"] == 0)
    fold(ledger, store, job_id)
    with ledger.sessions.begin() as session:
        damage.mark_part(session, good["id"], key=good["part_key"], reason="torn")
    shown = {chunk[0]: chunk[7] for chunk in pages(ledger, store, job_id)}
    assert {chunk_id for chunk_id, found in shown.items() if found} == {good["id"]}
    assert retry(ledger, store, job_id) == 3
    again = next(row for row in rows(ledger, job_id) if row["id"] == good["id"])
    assert (again["state"], again["retried_part"]) == ("pending", None)
    with ledger.sessions.begin() as session:
        assert lookup.damage(session, job_id) == {}
        assert session.scalar(sa.select(FoldedDamage.chunk_id).limit(1)) is None


@pytest.mark.parametrize("torn", [True, False])
def test_rows_of_folded_chunks_whose_object_is_damaged_are_computed_again(
    ledger: Ledger, store: ObjectStore, *, torn: bool
) -> None:
    job_id = ended(ledger, store)
    with ledger.sessions.begin() as session:
        rest = sa.update(Chunk).where(Chunk.job_id == job_id, Chunk.rows_failed > 0)
        session.execute(rest.values(rows_failed=0))
    fold(ledger, store, job_id)
    lost = folds(ledger, job_id)[-1]
    store.put(lost.key, b"torn") if torn else store.delete(lost.key)
    report = collect(ledger, store)
    assert (report.removed, len(report.faults)) == (0, 1), "which parts it names is not known"
    with pytest.raises(Damaged, match=f"rows {lost.first_row} to {lost.end_row - 1}"):
        pages(ledger, store, job_id)
    assert retry(ledger, store, job_id) > 0
    again = [row for row in rows(ledger, job_id) if row["state"] != "split"]
    assert len({row["first_row"] for row in again}) == len(again)
    assert sum(row["rows"] for row in again) == 20
    pending = {row["first_row"] for row in again if row["state"] == "pending"}
    assert min(pending) == lost.first_row


def test_what_changes_between_writing_and_folding_is_not_lost(
    ledger: Ledger, store: ObjectStore
) -> None:
    job_id = ended(ledger, store)
    first = begun(ledger, store, job_id)
    with ledger.sessions.begin() as session:
        chunk = session.get_one(Chunk, first.chunks[0]["id"])
        chunk.damage = "found meanwhile"
    as_rows = rows(ledger, job_id)
    first.refused(ledger, "has changed")
    assert rows(ledger, job_id) == as_rows


def test_of_two_processes_that_fold_one_job_the_late_one_changes_nothing(
    ledger: Ledger, store: ObjectStore
) -> None:
    job_id = ended(ledger, store)
    before = answers(ledger, store, job_id)
    late, second = begun(ledger, store, job_id), begun(ledger, store, job_id)
    late.refused(ledger, "not to be folded")
    second.commit(ledger)
    second.refused(ledger, "not to be folded")
    late.refused(ledger, "not to be folded")
    assert answers(ledger, store, job_id) == before
    collect(ledger, store)
    assert not store.exists(late.key)
    assert answers(ledger, store, job_id) == before


def test_a_retry_that_comes_while_an_object_is_written_wins(
    ledger: Ledger, store: ObjectStore
) -> None:
    job_id = ended(ledger, store)
    first = begun(ledger, store, job_id)
    assert retry(ledger, store, job_id) == 2
    first.refused(ledger, "not to be folded")
    assert len(rows(ledger, job_id)) == 7
    ledger.set(job_id, state=JobState.CANCELLED, finished_at=sa.func.now())
    mark(ledger, job_id)
    first.refused(ledger, "not to be folded")


def test_the_collector_leaves_what_is_being_written_and_what_folded_chunks_name(
    ledger: Ledger, store: ObjectStore
) -> None:
    job_id = ended(ledger, store)
    named = {row["part_key"] for row in rows(ledger, job_id)} - {None}
    first = begun(ledger, store, job_id)
    assert collect(ledger, store).removed == 0
    first.commit(ledger)
    fold(ledger, store, job_id)
    late = parts.part_key(job_id, first_row=4, chunk_id=1, fence=99)
    store.put(late, b"late")
    report = collect(ledger, store)
    assert report.garbage.keys == [late]
    assert set(store.keys(f"jobs/{job_id}/parts")) == named
    assert report.counts[PROJECT, "chunks"] >= len(folds(ledger, job_id))


def test_a_part_that_a_half_of_a_split_chunk_carries_over_is_named_from_another_fold(
    ledger: Ledger, store: ObjectStore
) -> None:
    job_id = ended(ledger, store, whole=False)
    carried = parts.part_key(job_id, first_row=0, chunk_id=9, fence=1)
    store.put(carried, b"good rows")
    with ledger.sessions.begin() as session:
        last = session.scalars(
            sa.select(Chunk).where(Chunk.job_id == job_id).order_by(Chunk.first_row.desc())
        ).first()
        assert last is not None
        last.retried_part = carried
    fold(ledger, store, job_id)
    collect(ledger, store)
    assert store.exists(carried)


def test_a_part_of_a_folded_chunk_that_is_gone_is_found_and_marked(
    ledger: Ledger, store: ObjectStore
) -> None:
    with ledger.sessions.begin() as session:
        for table in (Removal, FoldedDamage, ChunkFold, Chunk, Shard):
            session.execute(sa.delete(table))
    job_id = ended(ledger, store)
    lost = next(row for row in rows(ledger, job_id) if row["rows_failed"] == 0)
    fold(ledger, store, job_id)
    store.delete(lost["part_key"])
    report = collect(ledger, store)
    collector.find_missing(ledger.sessions, store, report, mark=True)
    of_job = [each for each in report.missing if each.user == job_id]
    assert lost["part_key"] in {each.key for each in of_job}
    with ledger.sessions.begin() as session:
        assert set(lookup.damage(session, job_id)) == {lost["id"]}


def test_a_deleted_job_leaves_neither_folds_nor_objects(ledger: Ledger, store: ObjectStore) -> None:
    job_id = ended(ledger, store)
    fold(ledger, store, job_id)
    with ledger.sessions.begin() as session:
        deletions.delete_job(session, job_id, project_id=PROJECT)
    purger.purge_deleted(ledger.sessions, store)
    assert folds(ledger, job_id) == []
    assert list(store.keys(f"jobs/{job_id}")) == []


@pytest.mark.parametrize("state", sorted(set(JobState) - {"failed"}))
def test_a_job_that_can_still_move_by_itself_is_not_folded(
    ledger: Ledger, store: ObjectStore, state: JobState
) -> None:
    job_id = ended(ledger, store, whole=False)
    final = state in {"succeeded", "cancelled", "expired"}
    moment = sa.func.now() if final else None
    ledger.set(job_id, state=state, error_code=None, finished_at=moment)
    assert (fold(ledger, store, job_id) > 0) is final
    ledger.set(job_id, state=JobState.CANCELLED, finished_at=sa.func.now())


def test_a_job_of_which_a_worker_holds_a_chunk_waits(ledger: Ledger, store: ObjectStore) -> None:
    job_id = ended(ledger, store, whole=False)
    ledger.set(job_id, state=JobState.RUNNING, error_code=None, finished_at=None)
    pending = next(chunk for chunk in ledger.live(job_id) if chunk.state is ChunkState.PENDING)
    ledger.claimed(pending.id)
    ledger.set(job_id, state=JobState.EXPIRED, finished_at=sa.func.now())
    assert fold(ledger, store, job_id) == 0
    ledger.run_out(pending.id)
    ledger.rescue()
    assert fold(ledger, store, job_id) > 0


def test_the_report_counts_rows_and_folds(ledger: Ledger, store: ObjectStore) -> None:
    job_id = ended(ledger, store)
    with ledger.sessions.begin() as session:
        before = storage.chunk_table(session)
    fold(ledger, store, job_id)
    with ledger.sessions.begin() as session:
        after = storage.chunk_table(session)
    assert before.rows - after.rows == 7
    assert after.folded_chunks - before.folded_chunks == 7
    assert after.folded_jobs - before.folded_jobs == 1
    assert after.folded_bytes > before.folded_bytes
