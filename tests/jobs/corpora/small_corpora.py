"""Corpora of a few bytes, read as the planner reads them."""

from __future__ import annotations

import io
from typing import Any

from jobs.corpora import readers
from jobs.corpora.schemas import CORPUS_SCHEMA
from jobs.corpora.sources import Source
from jobs.kinds import Corpus

Row = dict[str, Any]
MAX_ROW_BYTES = 2**20


def source(data: bytes, name: str) -> Source:
    return Source(name=name, fingerprint=lambda: "", open=lambda: io.BytesIO(data))


def rows(data: bytes, name: str, *, max_row_bytes: int = MAX_ROW_BYTES, **corpus: Any) -> list[Row]:
    """All rows, after checks that hold for every batch."""
    spec = Corpus.model_validate({"file": "file-1", **corpus})
    result: list[Row] = []
    for batch in readers.read(source(data, name), spec, max_row_bytes=max_row_bytes):
        batch.validate(full=True)
        assert batch.schema.equals(CORPUS_SCHEMA)
        assert 0 < batch.num_rows <= 4096
        result += batch.to_pylist()
    for row in result:
        assert (row["text"] is None) == (row["error_code"] is not None)
        assert (row["error_message"] is None) == (row["error_code"] is None)
        assert len(row["error_message"] or "") <= 200
    return result


def brief(rows: list[Row]) -> list[tuple[int, str]]:
    """Line, and text or error code in angle brackets."""
    return [(row["line"], row["text"] or f"<{row['error_code']}>") for row in rows]


def texts(data: bytes, name: str, **corpus: Any) -> list[str]:
    """The texts, or error codes in angle brackets."""
    return [text for _, text in brief(rows(data, name, **corpus))]
