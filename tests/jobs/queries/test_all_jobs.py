"""The listing of all projects, for operators."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from jobs.errors import NotFound
from jobs.queries import all_jobs
from jobs.queries.all_jobs import AllJobsFilter
from jobs.queries.job_filters import JobFilter
from jobs.states import JobState
from jobs.tables import Job
from tests.jobs.ledger.building import OTHER, PROJECT, Ledger

MANY = 10_000


@pytest.fixture(scope="module")
def named(ledger: Ledger) -> dict[str, str]:
    """Jobs by their names, the oldest first."""
    return {
        "first": ledger.accept(name="first", model="/models/news"),
        "second": ledger.accept(name="second", project=OTHER, model="/models/mail"),
        "third": ledger.running(5, name="third", model="/models/News-2"),
    }


def names(ledger: Ledger, **wanted: object) -> list[str]:
    with ledger.sessions.begin() as session:
        found, more = all_jobs.page(session, limit=10, wanted=AllJobsFilter(**wanted))  # type: ignore[arg-type]
    assert not more
    return [each.view.job.spec["name"] for each in found]


def test_jobs_of_all_projects_are_listed_the_newest_first(
    ledger: Ledger, named: dict[str, str]
) -> None:
    assert names(ledger) == ["third", "second", "first"]
    assert len(named) == 3


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"project": PROJECT}, ["third", "first"]),
        ({"project": "no such"}, []),
        ({"model": "NEWS"}, ["third", "first"]),
        ({"model": "%"}, []),
        ({"jobs": JobFilter(state=JobState.RUNNING)}, ["third"]),
        ({"jobs": JobFilter(name="SEC")}, ["second"]),
        ({"id": "job_no"}, []),
    ],
)
def test_a_filter_leaves_what_it_names(
    ledger: Ledger, named: dict[str, str], wanted: dict[str, object], expected: list[str]
) -> None:
    assert names(ledger, **wanted) == expected
    assert names(ledger, id=named["first"]) == ["first"]


def test_a_page_begins_behind_a_job(ledger: Ledger, named: dict[str, str]) -> None:
    with ledger.sessions.begin() as session:
        found, more = all_jobs.page(session, limit=1, after=named["third"])
        assert ([each.view.job.id for each in found], more) == ([named["second"]], True)
        with pytest.raises(NotFound):
            all_jobs.page(session, limit=1, after="job_no")


def test_a_job_is_found_without_its_project(ledger: Ledger, named: dict[str, str]) -> None:
    with ledger.sessions.begin() as session:
        assert all_jobs.get(session, named["second"]).job.project_id == OTHER
        with pytest.raises(NotFound):
            all_jobs.get(session, "job_no")


def test_a_page_of_many_jobs_walks_an_index(ledger: Ledger, named: dict[str, str]) -> None:
    """However many jobs there are, a page reads about as many rows as it shows."""
    columns = [column.name for column in sa.inspect(Job).columns if column.name != "id"]
    copied = ", ".join(columns)
    older = copied.replace("created_at", "created_at - n * interval '1 s'")
    with ledger.sessions.begin() as session:
        session.execute(
            sa.text(
                f"INSERT INTO jobs (id, {copied}) SELECT 'job_many_' || n, {older} "
                f"FROM jobs, generate_series(1, {MANY}) AS n WHERE id = :id"
            ),
            {"id": named["first"]},
        )
        session.execute(sa.text("ANALYZE jobs"))
    plans: list[str] = []

    def explain(_c: object, cursor: object, statement: str, values: object, *_: object) -> None:
        if "FROM jobs" in statement and "ORDER BY jobs.created_at" in statement:
            cursor.execute(f"EXPLAIN {statement}", values)  # type: ignore[attr-defined]
            plans.append("\n".join(line for (line,) in cursor.fetchall()))  # type: ignore[attr-defined]

    sa.event.listen(ledger.engine, "before_cursor_execute", explain)
    try:
        with ledger.sessions.begin() as session:
            found, more = all_jobs.page(session, limit=25, after="job_many_5000")
    finally:
        sa.event.remove(ledger.engine, "before_cursor_execute", explain)
    assert (len(found), more) == (25, True)
    assert found[0].view.job.id == "job_many_5001"
    (plan,) = plans
    assert "ix_jobs_created_at_id" in plan
    assert "Seq Scan" not in plan
    assert "Sort" not in plan
