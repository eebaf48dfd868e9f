"""Explanations of a classification, in a whole installation and in every output format."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from jobs.ledger import controls
from jobs.queries import chunks
from jobs.results import parts
from jobs.states import JobState
from jobs.tables import ResultRow
from tests.support.installation import PROJECT, Installation, jsonl, sentences
from tests.support.installations import NewInstallation
from tests.support.result_schemas import EXPLAINED_SCHEMA
from tests.support.tiny_models import tiny_classifier

TEXTS = [*sentences(9), ""]
CHOSEN = [0, 4, 7, 8]
EXPLAIN = {"rows": [7, 9, 500], "every": 4, "steps": 8}


@pytest.fixture(scope="module")
def installation(new_installation: NewInstallation) -> Iterator[Installation]:
    with new_installation(tiny_classifier, worker_threads=1).running(
        "control", "planner", "pool"
    ) as installation:
        yield installation


def finished(installation: Installation, **output: Any) -> str:
    job_id = installation.submit(
        jsonl(TEXTS),
        classify={"explain": EXPLAIN},
        chunk_rows=4,
        output={"keep_text": True, **output},
    )
    ended(installation, job_id)
    return job_id


def ended(installation: Installation, job_id: str) -> None:
    view = installation.wait(job_id, seconds=240)
    assert view.job.state is JobState.SUCCEEDED, f"{view.job.error_message} {installation.logs()}"
    assert installation.verify(job_id).problems == ()


def file_of(installation: Installation, job_id: str) -> bytes:
    output = installation.job(job_id).job.output
    assert output is not None
    return installation.store.get(output["file"])


def test_the_chosen_rows_are_explained(installation: Installation) -> None:
    job_id = finished(installation, format="parquet", postgres=True)
    results = installation.results(job_id)
    assert [each["row"] for each in results if each["explanation"] is not None] == CHOSEN
    assert results[9]["error_code"] == "empty_text"
    for row in CHOSEN:
        for token in results[row]["explanation"]:
            if token["start"] is not None:
                assert token["token"] == TEXTS[row][token["start"] : token["end"]]
    table = pq.read_table(io.BytesIO(file_of(installation, job_id)))
    assert table.schema.equals(EXPLAINED_SCHEMA)
    assert table.to_pylist() == results
    with installation.sessions.begin() as session:
        wanted = sa.select(ResultRow.row, ResultRow.explanation).where(ResultRow.job_id == job_id)
        stored = {each.row: each.explanation for each in session.execute(wanted)}
        done = list(chunks.done_parts(session, job_id))
    assert stored == {each["row"]: each["explanation"] for each in results}
    for part in done:
        assert parts.read(installation.store, part).schema.equals(EXPLAINED_SCHEMA)


def test_a_retry_keeps_explanations(installation: Installation) -> None:
    job_id = finished(installation)
    before = installation.results(job_id)
    with installation.sessions.begin() as session:
        assert controls.retry(session, job_id, project_id=PROJECT) == 1
    ended(installation, job_id)
    assert installation.results(job_id) == before


def test_explanations_are_json_in_jsonl_and_in_csv(installation: Installation) -> None:
    job_id = finished(installation, format="jsonl")
    results = installation.results(job_id)
    content = file_of(installation, job_id).decode()
    assert [json.loads(line) for line in content.splitlines()] == results
    job_id = finished(installation, format="csv")
    content = file_of(installation, job_id).decode()
    rows = list(csv.DictReader(io.StringIO(content, newline="")))
    for row, record in zip(rows, installation.results(job_id), strict=True):
        cell = row["explanation"]
        assert (json.loads(cell) if cell else None) == record["explanation"]


def test_a_job_without_explanations_has_no_such_column(
    installation: Installation, tmp_path: Path
) -> None:
    job_id = installation.submit(jsonl(TEXTS), chunk_rows=4, output={"format": "parquet"})
    ended(installation, job_id)
    (tmp_path / "out.parquet").write_bytes(file_of(installation, job_id))
    assert "explanation" not in pq.read_schema(tmp_path / "out.parquet").names
    assert "explanation" not in installation.results(job_id)[0]
