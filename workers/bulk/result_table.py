"""The table of a chunk's part, made from the engine's answers, and the counts of that table."""

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
from jobs.results.schemas import ROW_COLUMNS
from workers.inference.engine import Answer, RowError
from workers.inference.tasks.classifier import Prediction

_POWERS = 2.0 ** np.arange(1, 8)
_JUST_ABOVE_ONE = 1 + 1e-6  # a probability of 1 shares a bin with 0.99

SCORES = np.array(
    [-np.inf, *-_POWERS[::-1], -1, *np.arange(20) / 20, _JUST_ABOVE_ONE, *_POWERS, np.inf]
)
LENGTHS = np.array([0, 1, *2.0 ** np.arange(1, 24), np.inf])
"""Edges of bins: twentieths for probabilities, powers of two for other scores and for tokens."""

COPIED_ROWS = 256
"""Rows held as Python objects at one time; one embedding is a thousand of them."""

MAX_EXAMPLE_CHARACTERS = 200
"""Characters of an id or message that an example of an error keeps."""


def table(
    rows: pa.Table,
    results: Mapping[int, Answer | RowError],
    *,
    schema: pa.Schema,
    earlier: Mapping[int, Mapping[str, Any]],
    keep_text: bool,
) -> pa.Table:
    """Every row of the chunk once (promise P2).

    Its result comes from ``earlier``, a part that a retry completes, or from ``results``, or it is
    the error of a row that the corpus reader could not read.
    """
    result_columns = [name for name in schema.names if name not in ROW_COLUMNS]
    records = []
    for row in rows.to_pylist():
        number = row["row"]
        record = {"row": number, "line": row["line"], "id": row["id"]}
        record["source"] = row.get("source")
        record["text"] = row["text"] if keep_text else None
        if number in earlier:
            record |= {name: earlier[number][name] for name in result_columns}
        elif number in results:
            record |= _columns(results[number])
        else:
            record |= {"error_code": row["error_code"], "error_message": row["error_message"]}
        records.append(record)
    columns = [_column([record.get(field.name) for record in records], field) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def _columns(result: Answer | RowError) -> dict[str, Any]:
    if isinstance(result, RowError):
        return {"error_code": result.code.value, "error_message": result.message}
    return result.columns()


def _column(values: list[Any], field: pa.Field) -> pa.Array:
    if pa.types.is_fixed_size_list(field.type):
        return _vectors(values, vector_type=field.type)
    return pa.array(values, field.type)


def _vectors(values: list[Any], *, vector_type: pa.FixedSizeListType) -> pa.Array:
    """A column of vectors; each value is copied once and none becomes a Python object."""
    vectors = np.zeros((len(values), vector_type.list_size), np.float32)
    missing = np.zeros(len(values), np.bool_)
    for index, value in enumerate(values):
        if value is None:
            missing[index] = True
        else:
            vectors[index] = value
    return pa.FixedSizeListArray.from_arrays(
        pa.array(vectors.reshape(-1)), type=vector_type, mask=pa.array(missing)
    )


def tokens(part: pa.Table) -> int:
    """Input and output tokens of all rows."""
    counts = [name for name in ("tokens", "output_tokens") if name in part.column_names]
    return sum(int(pc.sum(part[name]).as_py() or 0) for name in counts)


def histogram(part: pa.Table) -> dict[str, int]:
    """Rows by best label; rows without a label are not counted."""
    if "label" not in part.column_names:
        return {}
    return dict(Counter(label for label in part["label"].to_pylist() if label is not None))


def profile(part: pa.Table) -> dict[str, dict[str, Any]]:
    """How scores and lengths are spread (``jobs.decisions.drift``): rows by bin, and the sum.

    A bin is named by its lower edge. Rows without a value, such as error rows, are left out.
    """
    found = {}
    for name, column, edges in (("scores", "score", SCORES), ("lengths", "tokens", LENGTHS)):
        if column not in part.column_names or part[column].null_count == part.num_rows:
            continue
        values = part[column].drop_null().to_numpy().astype(np.float64)
        counts = np.histogram(values[np.isfinite(values)], bins=edges)[0]
        found[name] = {
            "bins": {f"{edges[place]:g}": int(counts[place]) for place in np.flatnonzero(counts)},
            "total": float(values[np.isfinite(values)].sum()),
        }
    return found


def agreement(results: Mapping[int, Answer | RowError]) -> tuple[int, int]:
    """Rows that were computed in float32 as well as in int8, and how many of these agree."""
    agrees = [result.agrees for result in results.values() if isinstance(result, Prediction)]
    return sum(each is not None for each in agrees), sum(each is True for each in agrees)


def errors(part: pa.Table) -> dict[str, dict[str, Any]]:
    """Error rows by code: their count, and the place and message of the first."""
    by_code: dict[str, dict[str, Any]] = {}
    bad = part.filter(part["error_code"].is_valid())
    places = [name for name in ("row", "line", "source", "id") if name in part.column_names]
    for row in bad.select([*places, "error_code", "error_message"]).to_pylist():
        code = row.pop("error_code")
        if code not in by_code:
            message, id_ = row.pop("error_message"), row.pop("id")
            by_code[code] = {"rows": 0, "id": _clipped(id_), "message": _clipped(message), **row}
        by_code[code]["rows"] += 1
    return by_code


def quality(results: Mapping[int, Answer | RowError]) -> QualityCounts:
    """Counts of truncated rows, near ties and unknown tokens among the answers."""
    answers = [result for result in results.values() if not isinstance(result, RowError)]
    return QualityCounts(
        rows=len(answers),
        rows_truncated=sum(bool(answer.truncated) for answer in answers),
        rows_near_tie=sum(isinstance(each, Prediction) and each.near_tie for each in answers),
        tokens=sum(answer.tokens or 0 for answer in answers),
        tokens_unknown=sum(answer.unknown for answer in answers),
    )


def result_rows(job_id: str, part: pa.Table) -> Iterator[tuple[Any, ...]]:
    """Rows of the table ``result_rows``, in the order of its columns."""
    for batch in part.to_batches(max_chunksize=COPIED_ROWS):
        for row in batch.to_pylist():
            labels, scores = row.get("labels"), row.pop("scores", None)
            explanation = row.get("explanation")
            values = row | {
                "job_id": job_id,
                "labels": None if labels is None else Jsonb(dict(zip(labels, scores, strict=True))),
                "explanation": None if explanation is None else Jsonb(explanation),
            }
            yield tuple(_storable(values.get(name)) for name in COLUMNS)


def _clipped(text: str | None) -> str | None:
    return None if text is None else str(_storable(text[:MAX_EXAMPLE_CHARACTERS]))


def _storable(value: Any) -> Any:
    """Postgres stores no NUL in a text: it becomes the replacement character."""
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value
