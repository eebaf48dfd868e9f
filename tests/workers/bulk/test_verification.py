"""`nightshift jobs verify` detects every kind of damage to a finished job (promise P2)."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import sqlalchemy as sa

from jobs.errors import Conflict, PartDamaged
from jobs.ledger import controls
from jobs.results import parts
from jobs.tables import Chunk, Job
from tests.jobs.ledger.building import PROJECT
from tests.support.result_schemas import CLASSIFY_SCHEMA
from tests.workers.bulk.conftest import Workshop

SIZES = (4, 6, 5)
FORMATS = ["jsonl", "csv", "parquet"]


def job(workshop: Workshop, output_format: str | None = None) -> str:
    return workshop.finished(*SIZES, output={"format": output_format})


def damage(workshop: Workshop, job_id: str, change: Callable[[pa.Table], pa.Table]) -> None:
    """Rewrite the second part, without hashes, so that only its rows can show the damage."""
    forget_hashes(workshop, job_id)
    key = workshop.part_keys(job_id)[1]
    parts.write(workshop.store, key, change(parts.read_object(workshop.store, key, sha256=None)))


def forget_hashes(workshop: Workshop, job_id: str) -> None:
    """Make it a job of a version that stored no hashes."""
    with workshop.ledger.sessions.begin() as session:
        chunks = sa.update(Chunk).where(Chunk.job_id == job_id)
        session.execute(chunks.values(part_sha256=None))
        job = session.get_one(Job, job_id)
        assert job.output is not None
        job.output = {**job.output, "file_bytes": None, "file_sha256": None}


def test_a_whole_job_has_no_problems(workshop: Workshop) -> None:
    for output_format in (None, *FORMATS):
        report = workshop.verify(job(workshop, output_format))
        assert report.problems == ()
        assert report.ok
        assert (report.rows_total, report.rows_input, report.rows_output) == (15, 15, 15)


def test_error_rows_are_counted_and_are_no_problem(workshop: Workshop) -> None:
    job_id = workshop.job(4, 6)
    first, second = workshop.ledger.live(job_id)
    workshop.commit(workshop.ledger.claimed(first.id), failed=3)
    workshop.commit(workshop.ledger.claimed(second.id))
    workshop.finish(job_id)
    report = workshop.verify(job_id)
    assert (report.problems, report.rows_failed) == ((), 3)


def test_a_part_that_is_missing_is_detected(workshop: Workshop) -> None:
    job_id = job(workshop)
    key = workshop.part_keys(job_id)[1]
    workshop.store.delete(key)
    report = workshop.verify(job_id)
    assert any(f"{key} is gone" in problem for problem in report.problems)
    assert report.missing == 6


def test_a_part_that_is_torn_is_detected(workshop: Workshop) -> None:
    job_id = job(workshop)
    key = workshop.part_keys(job_id)[1]
    workshop.store.put(key, workshop.store.get(key)[:-20])
    for what in ("its sha256 must be", "it is not whole Parquet"):
        (problem, missing) = workshop.verify(job_id).problems
        assert key in problem
        assert what in problem
        assert "`nightshift jobs retry` computes them again" in problem
        assert missing == "6 rows have no result"
        forget_hashes(workshop, job_id)


def test_a_part_with_other_labels_is_detected(workshop: Workshop) -> None:
    job_id = job(workshop)
    key = workshop.part_keys(job_id)[1]
    table = parts.read_object(workshop.store, key, sha256=None)
    column = table.schema.get_field_index("label")
    bad = pa.array(["bad"] * table.num_rows)
    parts.write(workshop.store, key, table.set_column(column, "label", bad))
    report = workshop.verify(job_id)
    assert "its sha256 must be" in report.problems[0]
    assert report.unhashed == 0


def test_parts_without_a_hash_are_counted(workshop: Workshop) -> None:
    job_id = job(workshop)
    forget_hashes(workshop, job_id)
    report = workshop.verify(job_id)
    assert (report.ok, report.unhashed) == (True, len(SIZES))


def test_a_damaged_part_is_computed_again_by_a_retry(workshop: Workshop) -> None:
    job_id = job(workshop, "csv")
    key = workshop.part_keys(job_id)[1]
    workshop.store.put(key, b"torn")
    with pytest.raises(Conflict, match="no damage of its parts is known"):
        retry(workshop, job_id)
    assert not workshop.verify(job_id).ok
    assert retry(workshop, job_id) == 1
    workshop.do(job_id)
    workshop.finish(job_id)
    assert workshop.verify(job_id).problems == ()


def test_a_damaged_file_is_written_again_by_a_retry(workshop: Workshop) -> None:
    job_id = job(workshop, "csv")
    workshop.store.delete(workshop.file_key(job_id))
    assert not workshop.verify(job_id).ok
    assert retry(workshop, job_id) == 0
    workshop.finish(job_id)
    assert workshop.verify(job_id).problems == ()


def test_results_of_a_damaged_part_are_refused_and_the_damage_is_recorded(
    workshop: Workshop,
) -> None:
    job_id = job(workshop)
    workshop.store.put(workshop.part_keys(job_id)[1], b"torn")
    assert len(workshop.page(job_id, from_row=0, limit=4).rows) == 4
    with pytest.raises(PartDamaged, match=r"rows 4 to 9\); `nightshift jobs retry`"):
        workshop.page(job_id, from_row=0, limit=5)
    assert retry(workshop, job_id) == 1


def retry(workshop: Workshop, job_id: str) -> int:
    with workshop.ledger.sessions.begin() as session:
        return controls.retry(session, job_id, project_id=PROJECT)


def test_a_row_that_is_there_twice_is_detected(workshop: Workshop) -> None:
    job_id = job(workshop)
    damage(workshop, job_id, lambda table: pa.concat_tables([table, table.slice(2, 1)]))
    report = workshop.verify(job_id)
    assert report.duplicated == 1
    assert "1 rows have more than one result" in report.problems


def test_a_row_that_is_lost_is_detected(workshop: Workshop) -> None:
    job_id = job(workshop)
    damage(workshop, job_id, lambda table: table.slice(0, table.num_rows - 1))
    report = workshop.verify(job_id)
    assert report.missing == 1
    assert "1 rows have no result" in report.problems


def test_a_row_in_the_place_of_another_is_detected_though_the_counts_add_up(
    workshop: Workshop,
) -> None:
    job_id = job(workshop)
    damage(workshop, job_id, lambda table: pa.concat_tables([table.slice(1), table.slice(1, 1)]))
    report = workshop.verify(job_id)
    assert (report.missing, report.duplicated, report.rows_output) == (1, 1, 15)
    assert not report.ok


def test_a_row_that_the_corpus_does_not_have_is_detected(workshop: Workshop) -> None:
    job_id = job(workshop)
    moved = CLASSIFY_SCHEMA.get_field_index("row")

    def shift(table: pa.Table) -> pa.Table:
        return table.set_column(moved, "row", pc.add(table["row"], 100))

    damage(workshop, job_id, shift)
    problems = workshop.verify(job_id).problems
    assert any("holds row 104, which the corpus does not have" in problem for problem in problems)


def test_a_count_in_the_ledger_that_is_wrong_is_detected(workshop: Workshop) -> None:
    job_id = job(workshop)
    with workshop.ledger.sessions.begin() as session:
        session.execute(sa.update(Chunk).where(Chunk.job_id == job_id).values(rows_failed=1))
    problems = workshop.verify(job_id).problems
    assert len(problems) == len(SIZES)
    assert "holds 4 rows, 0 failed; the ledger has 4, 1" in problems[0]


def test_a_corpus_that_lost_a_row_is_detected(workshop: Workshop) -> None:
    job_id = job(workshop)
    key = f"files/{workshop.ledger.job(job_id).spec['corpus']['file']}"
    workshop.store.put(key, b"\n".join(workshop.store.get(key).splitlines()[:-1]))
    assert "the corpus has 14 rows, but 15 were planned" in workshop.verify(job_id).problems


@pytest.mark.parametrize("output_format", FORMATS)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.95])
def test_a_file_that_is_cut_short_is_detected(
    workshop: Workshop, output_format: str, share: float
) -> None:
    job_id = job(workshop, output_format)
    key = workshop.file_key(job_id)
    data = workshop.store.get(key)
    workshop.store.put(key, data[: int(share * len(data))])
    problems = workshop.verify(job_id).problems
    assert len(problems) == 1
    assert key in problems[0]


@pytest.mark.parametrize("output_format", ["jsonl", "csv"])
def test_a_file_with_one_row_twice_and_one_lost_is_detected(
    workshop: Workshop, output_format: str
) -> None:
    job_id = job(workshop, output_format)
    key = workshop.file_key(job_id)
    lines = workshop.store.get(key).splitlines(keepends=True)
    forget_hashes(workshop, job_id)
    workshop.store.put(key, b"".join([*lines[:-1], lines[-2]]))
    assert any("differ" in problem for problem in workshop.verify(job_id).problems)


def test_a_file_that_is_missing_is_detected(workshop: Workshop) -> None:
    job_id = job(workshop, "jsonl")
    workshop.store.delete(workshop.file_key(job_id))
    (problem,) = workshop.verify(job_id).problems
    assert "is damaged" in problem


def test_long_kept_texts_are_no_problem_in_csv(workshop: Workshop) -> None:
    job_id = job(workshop, "csv")
    key = workshop.file_key(job_id)
    forget_hashes(workshop, job_id)
    long = b'"' + 200_000 * b"x" + b'"'
    workshop.store.put(key, workshop.store.get(key).replace(b",good,", b"," + long + b",", 1))
    assert workshop.verify(job_id).problems == ()
