"""The single file and the rows in Postgres hold what the parts hold, for every kind."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pyarrow.parquet as pq
import sqlalchemy as sa

from jobs.tables import ResultRow
from tests.support.installation import Installation
from tests.workers.bulk.kinds.bulk_kind import (
    GOOD,
    NEAR,
    ROWS,
    WIDTH,
    BulkKind,
    Record,
    assert_same,
    output_file,
    succeeded,
)


def test_a_parquet_file_has_the_schema_of_the_kind(
    installation: Installation, kind: BulkKind, job_id: str
) -> None:
    table = pq.read_table(io.BytesIO(output_file(installation, job_id)))
    assert table.schema.equals(kind.schema())


def test_a_parquet_file_holds_every_row(
    installation: Installation, job_id: str, results: list[Record]
) -> None:
    table = pq.read_table(io.BytesIO(output_file(installation, job_id)))
    assert table.to_pylist() == results


def test_a_jsonl_file_holds_every_row(installation: Installation, kind: BulkKind) -> None:
    job_id = succeeded(installation, kind, format="jsonl")
    content = output_file(installation, job_id).decode()
    assert [json.loads(line) for line in content.splitlines()] == installation.results(job_id)
    assert installation.verify(job_id).problems == ()


def test_a_csv_file_holds_every_row(installation: Installation, kind: BulkKind) -> None:
    job_id = succeeded(installation, kind, format="csv")
    content = io.StringIO(output_file(installation, job_id).decode(), newline="")
    expected = [in_csv(record) for record in installation.results(job_id)]
    assert list(csv.DictReader(content)) == expected
    assert installation.verify(job_id).problems == ()


def in_csv(record: Record) -> Record:
    """The record as CSV holds it: vectors are JSON, and null is the empty text."""
    return {
        name: json.dumps(value)
        if isinstance(value, list)
        else ("" if value is None else str(value))
        for name, value in record.items()
    }


def test_embeddings_in_a_parquet_file_are_a_matrix_of_unit_vectors(
    installation: Installation, kinds: dict[str, BulkKind]
) -> None:
    job_id = succeeded(installation, kinds["embed"], format="parquet")
    table = pq.read_table(io.BytesIO(output_file(installation, job_id)))
    column = table["embedding"].combine_chunks().drop_null()
    matrix = column.flatten().to_numpy().reshape(len(column), -1)
    assert matrix.shape == (len(GOOD), WIDTH)
    assert np.abs(np.linalg.norm(matrix, axis=1) - 1).max() < NEAR


def test_result_rows_in_postgres_are_those_of_the_parts(
    installation: Installation, kind: BulkKind, job_id: str, results: list[Record]
) -> None:
    query = sa.select(ResultRow.__table__).where(ResultRow.job_id == job_id).order_by("row")
    with installation.sessions.begin() as session:
        rows = [dict(row) for row in session.execute(query).mappings()]
    assert len(rows) == ROWS
    names = ("row", "id", "error_code", "error_message", *kind.columns)
    for row, record in zip(rows, results, strict=True):
        assert_same(row, {name: record[name] for name in names})
