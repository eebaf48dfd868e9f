"""From predictions to the rows of a part of a classify job."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from psycopg.types.json import Jsonb

from jobs.rows import CLASSIFY_SCHEMA
from workers.inference.engine import Prediction, RowError

RESULT_COLUMNS = [
    name for name in CLASSIFY_SCHEMA.names if name not in ("row", "line", "id", "text")
]


def table(
    rows: pa.Table,
    results: Mapping[int, Prediction | RowError],
    *,
    kept: Mapping[int, Mapping[str, Any]],
    keep_text: bool,
) -> pa.Table:
    """Every row of the chunk once: kept from an earlier part, predicted, or bad from the start."""
    records = []
    for row in rows.to_pylist():
        place = row["row"]
        record = {"row": place, "line": row["line"], "id": row["id"]}
        record["text"] = row["text"] if keep_text else None
        if place in kept:
            record |= {name: kept[place][name] for name in RESULT_COLUMNS}
        elif place in results:
            record |= _columns(results[place])
        else:
            record |= {"error_code": row["error_code"], "error_message": row["error_message"]}
        records.append(record)
    return pa.Table.from_pylist(records, schema=CLASSIFY_SCHEMA)


def _columns(result: Prediction | RowError) -> dict[str, Any]:
    if isinstance(result, RowError):
        return {"error_code": result.code.value, "error_message": result.message}
    return {
        "label": result.labels[0] if result.labels else None,
        "score": result.scores[0] if result.scores else None,
        "labels": list(result.labels),
        "scores": list(result.scores),
        "tokens": result.tokens,
        "truncated": result.truncated,
    }


def tokens(part: pa.Table) -> int:
    """Tokens that the model read."""
    return int(pc.sum(part["tokens"]).as_py() or 0)


def histogram(part: pa.Table) -> dict[str, int]:
    """Rows by best label; rows without one are not in it."""
    return dict(Counter(label for label in part["label"].to_pylist() if label is not None))


def result_rows(job_id: str, part: pa.Table) -> Iterator[tuple[Any, ...]]:
    """Rows of the table ``result_rows``, in the order of its columns."""
    for row in part.to_pylist():
        scores = None
        if row["labels"] is not None:
            scores = Jsonb(dict(zip(row["labels"], row["scores"], strict=True)))
        yield (
            job_id,
            row["row"],
            _storable(row["id"]),
            _storable(row["label"]),
            row["score"],
            scores,
            row["tokens"],
            row["truncated"],
            row["error_code"],
            _storable(row["error_message"]),
        )


def _storable(text: str | None) -> str | None:
    """Postgres has no NUL in texts; it becomes the replacement character."""
    return None if text is None else text.replace("\0", "\ufffd")
