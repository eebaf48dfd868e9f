"""Labelled corpora of a few rows in every format, read as the planner reads them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.corpora import readers
from jobs.corpora.schemas import LABELLED_SCHEMA
from jobs.corpora.targets import TargetKind
from jobs.kinds import LabelledCorpus
from tests.jobs.corpora.small_corpora import MAX_ROW_BYTES, Row, source

LABEL, LABELS, TEXT, COMPLETION, PAIR, SETTINGS, _ = TargetKind
FORMATS = ["jsonl", "csv", "tsv", "parquet"]


def read(
    data: bytes,
    name: str,
    kind: TargetKind = LABEL,
    *,
    max_row_bytes: int = MAX_ROW_BYTES,
    **corpus: Any,
) -> list[Row]:
    """All rows, after checks that hold for every batch."""
    spec = LabelledCorpus.model_validate({"file": "file-1", **corpus})
    rows: list[Row] = []
    corpus_source = source(data, name)
    for batch in readers.read(corpus_source, spec, max_row_bytes=max_row_bytes, targets=kind):
        batch.validate(full=True)
        assert batch.schema.equals(LABELLED_SCHEMA)
        rows += batch.to_pylist()
    for row in rows:
        bad = row["error_code"] is not None
        assert (row["text"] is None) == bad
        assert (row["target"] is None) == bad or kind is COMPLETION
    return rows


def pairs(rows: list[Row]) -> list[tuple[str, str | None]]:
    """Text and target, or the error code in angle brackets."""
    return [
        (row["text"], row["target"]) if row["text"] else (f"<{row['error_code']}>", None)
        for row in rows
    ]


def encoded(columns: Mapping[str, Any], kind: str) -> bytes:
    """A file with these columns in the format ``kind``."""
    file = io.BytesIO()
    if kind == "parquet":
        pq.write_table(pa.table(columns), file)
        return file.getvalue()
    records = list(zip(*columns.values(), strict=True))
    if kind == "jsonl":
        return "\n".join(json.dumps(dict(zip(columns, r, strict=True))) for r in records).encode()
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter="," if kind == "csv" else "\t")
    writer.writerows([list(columns), *records])
    return text.getvalue().encode()


def jsonl(*rows: Any) -> bytes:
    return "\n".join(json.dumps(row) for row in rows).encode()
