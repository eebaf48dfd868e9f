"""Live results: every row once, in the order of the corpus, up to the first gap."""

from __future__ import annotations

import pytest

from jobs.ledger import controls
from jobs.states import JobState
from tests.jobs.ledger.building import PROJECT
from tests.workers.bulk.conftest import Workshop

SIZES = (3, 1, 5, 2)
ROWS = sum(SIZES)


@pytest.fixture(scope="module")
def finished(workshop: Workshop) -> str:
    return workshop.finished(*SIZES)


def walk(workshop: Workshop, job_id: str, *, limit: int) -> list[int]:
    """Every row number, by stepping with the cursor until there is no more."""
    rows: list[int] = []
    next_row = 0
    while True:
        page = workshop.page(job_id, from_row=next_row, limit=limit)
        assert len(page.rows) <= limit
        rows += [row["row"] for row in page.rows]
        if page.complete or page.next_row == next_row:
            return rows
        next_row = page.next_row


@pytest.mark.parametrize("limit", range(1, ROWS + 3))
def test_stepping_by_any_limit_yields_every_row_once_in_order(
    workshop: Workshop, finished: str, limit: int
) -> None:
    assert walk(workshop, finished, limit=limit) == list(range(ROWS))


def test_results_may_begin_at_any_row(workshop: Workshop, finished: str) -> None:
    for from_row in range(ROWS + 1):
        page = workshop.page(finished, from_row=from_row, limit=100)
        assert [row["row"] for row in page.rows] == list(range(from_row, ROWS))
        assert page.complete


def test_a_running_job_shows_its_rows_up_to_the_first_gap(workshop: Workshop) -> None:
    job_id = workshop.job(*SIZES)
    workshop.do(job_id, 0, 2)
    page = workshop.page(job_id, from_row=0, limit=100)
    assert [row["row"] for row in page.rows] == [0, 1, 2]
    assert (page.next_row, page.complete) == (3, False)
    workshop.do(job_id, 1)
    page = workshop.page(job_id, from_row=page.next_row, limit=100)
    assert [row["row"] for row in page.rows] == [3, 4, 5, 6, 7, 8]


def test_a_job_that_ended_with_gaps_shows_all_that_it_has(workshop: Workshop) -> None:
    job_id = workshop.job(*SIZES)
    workshop.do(job_id, 1, 3)
    with workshop.ledger.sessions.begin() as session:
        controls.cancel(session, job_id, project_id=PROJECT)
    workshop.ledger.finish(job_id)
    assert workshop.ledger.job(job_id).state is JobState.CANCELLED
    assert walk(workshop, job_id, limit=2) == [3, 9, 10]


def test_a_job_without_a_result_has_an_empty_page(workshop: Workshop) -> None:
    page = workshop.page(workshop.job(5), from_row=0, limit=10)
    assert (page.rows, page.next_row, page.complete) == ([], 0, False)


def test_texts_are_repeated_only_when_asked(workshop: Workshop) -> None:
    for keep in (False, True):
        job_id = workshop.finished(2, output={"keep_text": keep})
        (row, _) = workshop.page(job_id, from_row=0, limit=10).rows
        assert ("text" in row) == keep
