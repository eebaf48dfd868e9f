"""Chunks that fold while others read, retry, delete and collect."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from functools import partial

import pytest
import sqlalchemy as sa

from jobs import collector, database, folding, purger
from jobs.errors import Conflict, Damaged, JobFolded
from jobs.ledger import branches, controls, deletions
from jobs.ledger import chunk_folds as ledger_folds
from jobs.lookups import chunk_folds as lookup
from jobs.objects import ObjectStore
from jobs.queries import chunks as chunk_queries
from jobs.results import chunk_folds
from jobs.results import pages as result_pages
from jobs.states import FINAL, JobState
from tests.jobs.folded_jobs import (
    answers,
    begun,
    collect,
    ended,
    fold,
    folds,
    mark,
    pages,
    results,
    retry,
    rows,
)
from tests.jobs.ledger.building import PROJECT, Ledger

pytestmark = pytest.mark.usefixtures("small_folds")

ROWS = 20
"""Of each job."""


def fold_two(ledger: Ledger, store: ObjectStore, job_id: str) -> None:
    mark(ledger, job_id)
    folding.fold_due(ledger.sessions, store, seconds=0)


def unfold_two(ledger: Ledger, store: ObjectStore, job_id: str) -> None:
    with ledger.sessions.begin() as session:
        for folded in lookup.of_job(session, job_id)[-1:]:
            ledger_folds.restore(session, folded, chunk_folds.read(store, folded))


@pytest.mark.parametrize(("folded", "step"), [(False, fold_two), (True, unfold_two)])
def test_who_pages_while_chunks_fold_or_unfold_sees_each_once(
    ledger: Ledger,
    store: ObjectStore,
    *,
    folded: bool,
    step: Callable[[Ledger, ObjectStore, str], None],
) -> None:
    for read, limit in ((pages, 1), (results, 3)):
        job_id = ended(ledger, store, whole=False)
        before = read(ledger, store, job_id, limit)
        if folded:
            fold(ledger, store, job_id)
        between = partial(step, ledger, store, job_id)
        assert read(ledger, store, job_id, limit, between) == before


def test_what_was_listed_can_be_read_after_a_retry_has_unfolded_it(
    ledger: Ledger, store: ObjectStore
) -> None:
    job_id = ended(ledger, store)
    before = answers(ledger, store, job_id)["parts from 0"]
    fold(ledger, store, job_id)
    with ledger.sessions.begin() as session:
        database.one_snapshot(session)
        found = list(chunk_queries.listed(session, job_id))
    retry(ledger, store, job_id)
    grace = timedelta(hours=1)
    report = collector.collect(ledger.sessions, store, grace=grace, dry_run=False)
    assert report is not None
    assert report.removed == 0
    assert list(chunk_folds.parts(ledger.sessions, store, found)) == before


def test_a_job_that_is_deleted_while_an_object_is_written_leaves_nothing(
    ledger: Ledger, store: ObjectStore
) -> None:
    job_id = ended(ledger, store)
    late = begun(ledger, store, job_id)
    with ledger.sessions.begin() as session:
        deletions.delete_job(session, job_id, project_id=PROJECT)
    late.refused(ledger, "not to be folded")
    purger.purge_deleted(ledger.sessions, store)
    store.put(late.key, b"written late")
    late.refused(ledger, "not to be folded")
    assert collect(ledger, store).garbage.keys == [late.key]
    assert (rows(ledger, job_id), folds(ledger, job_id)) == ([], [])
    assert list(store.keys(f"jobs/{job_id}")) == []


def test_a_retry_of_a_job_and_those_behind_it_unfolds_them_all(
    ledger: Ledger, store: ObjectStore
) -> None:
    first = ended(ledger, store, whole=False)
    needs = [{"job": first, "on": "end"}]
    second = ended(ledger, store, whole=False, depends_on=needs)
    as_rows = [len(rows(ledger, each)) for each in (first, second)]
    fold(ledger, store, first, second)
    done = folding.retried(
        ledger.sessions,
        store,
        lambda session: branches.retry(session, first, project_id=PROJECT),
    )
    assert set(done) == {first, second}
    assert [len(rows(ledger, each)) for each in (first, second)] == as_rows
    assert folds(ledger, first) + folds(ledger, second) == []
    for each in done:
        assert ledger.job(each).state is JobState.RUNNING
        ledger.set(each, state=JobState.CANCELLED, finished_at=sa.func.now())


def test_a_retry_gives_up_if_others_fold_the_job_each_time(
    ledger: Ledger, store: ObjectStore
) -> None:
    job_id = ended(ledger, store)
    before = answers(ledger, store, job_id)

    def late(session: sa.orm.Session) -> int:
        fold(ledger, store, job_id)
        return controls.retry(session, job_id, project_id=PROJECT)

    with pytest.raises(JobFolded):
        folding.retried(ledger.sessions, store, late)
    assert answers(ledger, store, job_id) == before


@pytest.mark.slow
def test_beside_readers_retries_and_the_collector_every_row_is_in_one_chunk(
    ledger: Ledger, store: ObjectStore
) -> None:
    jobs = [ended(ledger, store, whole=chance % 2 == 0) for chance in range(4)]
    over = threading.Event()

    def again(work: Callable[[str], object]) -> Callable[[], int]:
        def until_over() -> int:
            chance, times = random.Random(7), 0
            while not over.is_set():
                work(chance.choice(jobs))
                times += 1
            return times

        return until_over

    def fold_some(_: str) -> None:
        mark(ledger, *(each for each in jobs if ledger.job(each).state in FINAL))
        folding.fold_due(ledger.sessions, store, seconds=0.05)

    def retry_and_cancel(job_id: str) -> None:
        with suppress(Conflict):
            retry(ledger, store, job_id)
        ledger.set(job_id, state=JobState.CANCELLED, finished_at=sa.func.now())

    def read(job_id: str) -> None:
        with suppress(Damaged):  # the collector, without grace, took a fold that was unfolded
            shown = pages(ledger, store, job_id, 2)
            covered = [row for each in shown for row in _covered(each)]
            assert covered == list(range(ROWS)), shown
            result_pages.page(ledger.sessions, store, job_id, from_row=0, limit=ROWS)

    works = (fold_some, fold_some, retry_and_cancel, read, lambda _: collect(ledger, store))
    with ThreadPoolExecutor(len(works)) as pool:
        under_way = [pool.submit(again(work)) for work in works]
        over.wait(3.0)
        over.set()
        assert all(each.result() > 0 for each in under_way)
    for job_id in jobs:
        folding.unfold(ledger.sessions, store, job_id)
        found = rows(ledger, job_id)
        assert sum(row["rows"] for row in found if row["state"] != "split") == ROWS
        named = {row[key] for row in found for key in ("part_key", "retried_part")} - {None}
        assert all(map(store.exists, named))
        assert all(row["damage"] is None for row in found)


def _covered(chunk: tuple[object, ...]) -> range:
    first_row, size = chunk[1:3]
    assert isinstance(first_row, int)
    assert isinstance(size, int)
    return range(first_row, first_row + size)
