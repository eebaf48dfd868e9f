"""Every row of the corpus has one result, which is what the engine answers for it alone."""

from __future__ import annotations

from jobs.queries import chunks
from jobs.results import parts
from tests.support.installation import Installation
from tests.workers.bulk.kinds.bulk_kind import (
    BAD,
    BLANK_BEFORE,
    CHUNK_ROWS,
    GOOD,
    ROWS,
    BulkKind,
    Record,
    assert_answers,
)


def test_every_row_has_one_result_in_the_order_of_the_corpus(results: list[Record]) -> None:
    assert [record["row"] for record in results] == list(range(ROWS))


def test_a_blank_line_counts_as_a_line_and_not_as_a_row(results: list[Record]) -> None:
    expected = [row + (1 if row < BLANK_BEFORE else 2) for row in range(ROWS)]
    assert [record["line"] for record in results] == expected


def test_a_bad_row_has_an_error_and_no_answer(results: list[Record], kind: BulkKind) -> None:
    for row, (_, code) in BAD.items():
        assert results[row]["error_code"] == code
        assert results[row]["error_message"]
        assert {results[row][name] for name in kind.columns} == {None}


def test_the_texts_of_good_rows_are_kept(results: list[Record]) -> None:
    assert {record["row"]: record["text"] for record in results if record["text"]} == GOOD


def test_a_good_row_has_the_answer_that_it_gets_alone(
    results: list[Record], kind: BulkKind
) -> None:
    assert_answers(results, kind, GOOD)


def test_verification_finds_every_row(
    installation: Installation, job_id: str, results: list[Record]
) -> None:
    report = installation.verify(job_id)
    assert (report.problems, report.rows_output, report.missing) == ((), ROWS, 0)
    assert report.rows_failed == sum(record["error_code"] is not None for record in results)


def test_every_chunk_has_a_part_with_the_schema_of_the_kind(
    installation: Installation, kind: BulkKind, job_id: str
) -> None:
    with installation.sessions.begin() as session:
        done = list(chunks.done_parts(session, job_id))
    assert len(done) == -(-ROWS // CHUNK_ROWS)
    for part in done:
        assert parts.read(installation.store, part).schema.equals(kind.schema())
