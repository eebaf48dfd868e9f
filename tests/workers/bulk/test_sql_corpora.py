"""Corpora that are the rows of a query: bounds, what is written down, what a query cannot do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from jobs import sql_sources
from jobs.corpora import sql_rows
from jobs.errors import CorpusRefused
from jobs.inputs import Input
from jobs.ledger import controls
from jobs.queries import inputs
from jobs.settings import Settings
from jobs.states import JobState
from jobs.tables import Job
from tests.jobs.ledger.building import OTHER, PROJECT
from tests.jobs.ledger.scheduling import Clockwork, at
from tests.support.servers import Databases
from tests.support.tiny_models import tiny_classifier
from tests.workers.bulk.conftest import Workshop
from tests.workers.bulk.nights import Nights, planned, rows
from workers.context import Context

REVIEWS = "SELECT id, body AS text, at FROM reviews WHERE at >= :since AND at < :until ORDER BY id;"
NEWEST = "SELECT id, body AS text FROM reviews WHERE id > :since ORDER BY id"


class Reviews:
    """A database of somebody else, with a table of texts."""

    def __init__(self, url: str, home: Path) -> None:
        self.url = url
        self.file = home / "sources.json"
        self.connection = psycopg.connect(url, autocommit=True)
        self.connection.execute("CREATE TABLE reviews (id bigint, body text, at timestamptz)")

    def add(self, number: int, body: str | None, moment: str = "2026-11-30 12:00+00") -> None:
        self.connection.execute("INSERT INTO reviews VALUES (%s, %s, %s)", [number, body, moment])

    def define(self, query: str = REVIEWS, **fields: Any) -> None:
        source = {"url": self.url, "query": query, **fields}
        self.file.write_text(json.dumps({"reviews": source}))


@pytest.fixture
def reviews(fresh_database: Databases, tmp_path: Path) -> Iterator[Reviews]:
    made = Reviews(fresh_database(), tmp_path)
    made.define()
    yield made
    made.connection.close()


@pytest.fixture
def sql_context(context: Context, reviews: Reviews) -> Context:
    settings = context.settings.model_copy(update={"sql_sources": str(reviews.file)})
    return replace(context, settings=settings)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_classifier(tmp_path_factory.mktemp("model") / "model"))


@pytest.fixture
def nights(
    workshop: Workshop,
    sql_context: Context,
    reviews: Reviews,
    model: str,
    clockwork: Clockwork,
    monkeypatch: pytest.MonkeyPatch,
) -> Nights:
    settings = Settings(sql_sources=str(reviews.file))
    monkeypatch.setattr("tests.jobs.ledger.scheduling.SETTINGS", settings)
    corpus = {"sql": {"source": "reviews"}, "since": "last_success", "if_empty": "skip"}
    return Nights(workshop, clockwork, sql_context, {"corpus": corpus, "model": model})


def plan(workshop: Workshop, context: Context, model: str, **corpus: Any) -> Job:
    job_id = workshop.ledger.accept(
        corpus={"sql": {"source": "reviews", "until": "2026-12-01T00:00Z"}, **corpus}, model=model
    )
    return planned(workshop, context, job_id)


def texts(workshop: Workshop, job: Job) -> list[str]:
    return [row["text"] for row in rows(workshop, job)]


def taken(workshop: Workshop, job: Job) -> Input:
    with workshop.ledger.sessions.begin() as session:
        found = inputs.of_job(session, job.id)
    assert found is not None
    [only] = found["rows"]
    return only


def error(job: Job) -> str:
    return f"{job.error_code}: {job.error_message}"


def test_rows_are_read_with_ids_and_lines_and_what_was_asked_is_written_down(
    workshop: Workshop, sql_context: Context, reviews: Reviews, model: str
) -> None:
    for number, body in enumerate(["good", None, "two\nlines, 50% off {x} :since", "体育"], 1):
        reviews.add(number, body)
    reviews.add(9, "later", "2026-12-02 00:00+00")
    job = plan(workshop, sql_context, model, id_column="id")
    assert (job.state, job.rows_total) == (JobState.RUNNING, 4), error(job)
    found = rows(workshop, job)
    assert [(row["id"], row["line"], row["text"]) for row in found] == [
        ("1", 1, "good"),
        ("2", 2, None),
        ("3", 3, "two\nlines, 50% off {x} :since"),
        ("4", 4, "体育"),
    ]
    assert found[1]["error_code"] == "missing_text"
    each = taken(workshop, job)
    assert (each.name, each.rows, each.bytes > 0) == ("sql:reviews", 4, True)
    assert each.query == {
        "text": REVIEWS,
        "since": "-infinity",
        "until": "2026-12-01T00:00Z",
        "next": "2026-12-01T00:00Z",
    }


def test_a_retry_reads_the_rows_that_were_written_down(
    workshop: Workshop, sql_context: Context, reviews: Reviews, model: str
) -> None:
    reviews.add(1, "good")
    missing = Path(f"{model}-none")
    job = plan(workshop, sql_context, str(missing))
    assert job.state is JobState.FAILED
    reviews.connection.execute("UPDATE reviews SET body = 'changed'")
    reviews.add(2, "more")
    reviews.file.unlink()
    with workshop.ledger.sessions.begin() as session:
        controls.retry(session, job.id, project_id=PROJECT)
    missing.symlink_to(model)
    job = planned(workshop, sql_context, job.id)
    assert texts(workshop, job) == ["good"], error(job)
    missing.unlink()


def test_bounds_are_values_and_no_text(
    workshop: Workshop, sql_context: Context, reviews: Reviews, model: str
) -> None:
    reviews.add(1, "good")
    until = "2026-12-01' OR true; DROP TABLE reviews; --"
    job = plan(workshop, sql_context, model, sql={"source": "reviews", "until": until})
    assert error(job).startswith("sql_failed: ")
    assert "invalid input syntax for type timestamp" in error(job)
    assert reviews.connection.execute("SELECT count(*) FROM reviews").fetchone() == (1,)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (
            "WITH gone AS (DELETE FROM reviews RETURNING *) SELECT body AS text FROM gone",
            "sql_failed",
        ),
        ("SELECT nextval('numbers')::text AS text", "read-only transaction"),
        ("SELECT 'a' AS text; DROP TABLE reviews", "syntax error"),
        ("SELECT body FROM no_table", 'relation "no_table" does not exist'),
        ("SELECT pg_sleep(30)::text AS text", "took longer than 0.5 s"),
    ],
)
def test_a_query_cannot_write_nor_run_on(
    workshop: Workshop,
    sql_context: Context,
    reviews: Reviews,
    model: str,
    query: str,
    message: str,
) -> None:
    reviews.add(1, "good")
    reviews.connection.execute("CREATE SEQUENCE numbers")
    reviews.define(query, statement_seconds=0.5)
    job = plan(workshop, sql_context, model)
    assert message in error(job)
    assert reviews.connection.execute("SELECT count(*) FROM reviews").fetchone() == (1,)


def test_a_database_that_is_away_is_tried_again_and_not_named(
    workshop: Workshop, sql_context: Context, reviews: Reviews, model: str
) -> None:
    reviews.define(url="postgresql://someone:secret@127.0.0.1:1/hidden")
    job = plan(workshop, sql_context, model)
    assert (job.state, job.step_failures) == (JobState.PLANNING, 1)
    assert job.step_error == "the SQL source reviews does not answer"


def test_a_row_over_the_limit_is_an_error_row_and_memory_holds_few_rows(
    workshop: Workshop, sql_context: Context, reviews: Reviews, model: str
) -> None:
    settings = sql_context.settings.model_copy(update={"max_row_bytes": 100})
    reviews.add(1, "a" * 1_000)
    reviews.connection.execute(
        "INSERT INTO reviews SELECT n, 'text ' || n, '2026-11-30Z' FROM generate_series(2, 400) n"
    )
    job = plan(workshop, replace(sql_context, settings=settings), model)
    found = rows(workshop, job)
    assert (len(found), found[0]["error_code"]) == (400, "row_too_long")
    assert found[399]["text"] == "text 400"
    assert sql_rows.FETCHED < 400


def test_values_with_line_ends_in_json_columns_stay_on_one_line(
    workshop: Workshop, sql_context: Context, reviews: Reviews, model: str
) -> None:
    reviews.define("SELECT 'a' AS text, E'{\n\"b\":\r1}'::json AS extra, now() AS n")
    job = plan(workshop, sql_context, model)
    assert (texts(workshop, job), job.rows_total) == (["a"], 1)


def test_a_source_is_there_for_its_projects_alone(reviews: Reviews) -> None:
    settings = Settings(sql_sources=str(reviews.file))
    reviews.define(projects=[PROJECT])
    assert sql_sources.find("reviews", project_id=PROJECT, settings=settings).begin == "-infinity"
    with pytest.raises(CorpusRefused, match="there are none"):
        sql_sources.find("reviews", project_id=OTHER, settings=settings)
    with pytest.raises(CorpusRefused, match="there are: reviews"):
        sql_sources.find("other", project_id=PROJECT, settings=settings)


@pytest.mark.parametrize(
    "content",
    [
        "no json",
        '{"a": {"url": "postgresql://u:secret@h/d"}}',
        '{"a": {"url": "", "query": "DROP"}}',
    ],
)
def test_a_file_that_cannot_be_read_is_refused_without_its_content(
    reviews: Reviews, content: str
) -> None:
    reviews.file.write_text(content)
    with pytest.raises(CorpusRefused) as refused:
        sql_sources.find("a", project_id=PROJECT, settings=Settings(sql_sources=str(reviews.file)))
    assert "secret" not in refused.value.message
    assert refused.value.__cause__ is None


def test_each_night_reads_the_rows_behind_those_of_the_last_that_succeeded(
    workshop: Workshop, nights: Nights, reviews: Reviews
) -> None:
    reviews.add(1, "first", "2026-11-30 12:00+00")
    first = nights.fire()
    assert texts(workshop, first) == ["first"]
    nights.succeed(first)
    reviews.add(2, "second", "2026-12-01 12:00+00")
    failed = nights.fire()
    assert texts(workshop, failed) == ["second"]
    nights.clockwork.end(failed, failed=True)
    reviews.add(3, "third", "2026-12-02 12:00+00")
    third = nights.fire()
    assert texts(workshop, third) == ["second", "third"]
    query = taken(workshop, third).query
    assert query is not None
    assert (query["since"], query["until"]) == (
        "2026-12-01T02:00:00+00:00",
        "2026-12-03T02:00:00+00:00",
    )
    nights.succeed(third)
    assert nights.fire().state is JobState.CANCELLED


def test_a_backfill_behind_a_later_night_reads_no_row_twice(
    workshop: Workshop, nights: Nights, reviews: Reviews
) -> None:
    reviews.add(1, "first", "2026-11-30 12:00+00")
    nights.nights = 2
    nights.succeed(nights.fire())
    made = nights.clockwork.backfill(
        nights.schedule, at("2026-12-01 00:00"), at("2026-12-02 03:00")
    )
    nights.clockwork.turn()
    assert made.fires >= 1
    job = nights.clockwork.jobs(nights.schedule)[0]
    job = planned(workshop, nights.context, job.id)
    assert (job.state, taken(workshop, job).rows) == (JobState.CANCELLED, 0)


def test_a_cursor_column_says_where_the_next_night_begins(
    workshop: Workshop, nights: Nights, reviews: Reviews
) -> None:
    reviews.define(NEWEST, cursor_column="id", begin="0")
    reviews.add(2, "two")
    reviews.add(10, "ten")
    first = nights.fire()
    assert texts(workshop, first) == ["two", "ten"]
    nights.succeed(first)
    assert nights.fire().state is JobState.CANCELLED
    reviews.add(11, "eleven")
    third = nights.fire()
    assert texts(workshop, third) == ["eleven"]
    query = taken(workshop, third).query
    assert query is not None
    assert (query["since"], query["next"]) == ("10", "11")
