"""From a model's answers to the rows of a part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from psycopg.types.json import Jsonb

from jobs.decisions.result_quality import QualityCounts
from jobs.ledger.result_rows import COLUMNS
from jobs.results.schemas import OF_THE_ROW
from workers.inference.engine import Answer, RowError
from workers.inference.tasks.classifier import Prediction

ROWS_AT_ONCE = 256
"""Rows that are objects of Python at one time: an embedding is a thousand of them."""

EXAMPLE = 200
"""Characters of an id or a message in the example of an error."""


def table(
    rows: pa.Table,
    results: Mapping[int, Answer | RowError],
    *,
    schema: pa.Schema,
    kept: Mapping[int, Mapping[str, Any]],
    keep_text: bool,
) -> pa.Table:
    """Every row of the chunk once: kept from an earlier part, answered, or bad from the start."""
    said = [name for name in schema.names if name not in OF_THE_ROW]
    records = []
    for row in rows.to_pylist():
        place = row["row"]
        record = {"row": place, "line": row["line"], "id": row["id"]}
        record["text"] = row["text"] if keep_text else None
        if place in kept:
            record |= {name: kept[place][name] for name in said}
        elif place in results:
            record |= _columns(results[place])
        else:
            record |= {"error_code": row["error_code"], "error_message": row["error_message"]}
        records.append(record)
    columns = [_column([each.get(field.name) for each in records], field) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def _columns(result: Answer | RowError) -> dict[str, Any]:
    if isinstance(result, RowError):
        return {"error_code": result.code.value, "error_message": result.message}
    return result.columns()


def _column(values: list[Any], field: pa.Field) -> pa.Array:
    if pa.types.is_fixed_size_list(field.type):
        return _vectors(values, kind=field.type)
    return pa.array(values, field.type)


def _vectors(values: list[Any], *, kind: pa.FixedSizeListType) -> pa.Array:
    """A column of vectors: all numbers are copied once, and none becomes an object of Python."""
    numbers = np.zeros((len(values), kind.list_size), np.float32)
    missing = np.zeros(len(values), np.bool_)
    for place, value in enumerate(values):
        if value is None:
            missing[place] = True
        else:
            numbers[place] = value
    return pa.FixedSizeListArray.from_arrays(
        pa.array(numbers.reshape(-1)), type=kind, mask=pa.array(missing)
    )


def tokens(part: pa.Table) -> int:
    """Tokens that the model read and wrote."""
    counted = [name for name in ("tokens", "output_tokens") if name in part.column_names]
    return sum(int(pc.sum(part[name]).as_py() or 0) for name in counted)


def histogram(part: pa.Table) -> dict[str, int]:
    """Rows by best label; rows without one are not in it."""
    if "label" not in part.column_names:
        return {}
    return dict(Counter(label for label in part["label"].to_pylist() if label is not None))


def agreement(results: Mapping[int, Answer | RowError]) -> tuple[int, int]:
    """Rows that were computed in float32 as well as in int8, and those that agree."""
    said = [each.agrees for each in results.values() if isinstance(each, Prediction)]
    return sum(each is not None for each in said), sum(each is True for each in said)


def errors(part: pa.Table) -> dict[str, dict[str, Any]]:
    """Error rows by code: how many, and where the first of them is and what it says."""
    found: dict[str, dict[str, Any]] = {}
    bad = part.filter(part["error_code"].is_valid())
    for row in bad.select(["row", "line", "id", "error_code", "error_message"]).to_pylist():
        code = row.pop("error_code")
        if code not in found:
            message, id_ = row.pop("error_message"), row.pop("id")
            found[code] = {"rows": 0, "id": _shown(id_), "message": _shown(message), **row}
        found[code]["rows"] += 1
    return found


def quality(results: Mapping[int, Answer | RowError]) -> QualityCounts:
    """How well the model could read these rows and tell their labels apart."""
    good = [each for each in results.values() if not isinstance(each, RowError)]
    return QualityCounts(
        rows=len(good),
        rows_truncated=sum(bool(each.truncated) for each in good),
        rows_near_tie=sum(isinstance(each, Prediction) and each.near_tie for each in good),
        tokens=sum(each.tokens or 0 for each in good),
        tokens_unknown=sum(each.unknown for each in good),
    )


def result_rows(job_id: str, part: pa.Table) -> Iterator[tuple[Any, ...]]:
    """Rows of the table ``result_rows``, in the order of its columns."""
    for batch in part.to_batches(max_chunksize=ROWS_AT_ONCE):
        for row in batch.to_pylist():
            labels, scores = row.get("labels"), row.pop("scores", None)
            explanation = row.get("explanation")
            known = row | {
                "job_id": job_id,
                "labels": None if labels is None else Jsonb(dict(zip(labels, scores, strict=True))),
                "explanation": None if explanation is None else Jsonb(explanation),
            }
            yield tuple(_storable(known.get(name)) for name in COLUMNS)


def _shown(text: str | None) -> str | None:
    """As much of an id or a message as an example needs."""
    return None if text is None else str(_storable(text[:EXAMPLE]))


def _storable(value: Any) -> Any:
    """Postgres has no NUL in texts; it becomes the replacement character."""
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value
