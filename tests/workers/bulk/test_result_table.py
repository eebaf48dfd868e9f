"""A part made from answers has every row once, and vectors unchanged."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from psycopg.types.json import Jsonb

from jobs.corpora.schemas import SHARD_SCHEMA
from jobs.decisions.result_quality import QualityCounts
from jobs.ledger.result_rows import COLUMNS
from jobs.row_codes import RowCode
from tests.support.result_schemas import CLASSIFY_SCHEMA, WRITTEN_SCHEMA, embed_schema
from workers.bulk import result_table
from workers.inference.decoding.text_generation import GeneratedText
from workers.inference.engine import Answer, RowError
from workers.inference.tasks.classifier import Prediction
from workers.inference.tasks.embedder import Embedding

WIDTH = 3
ANSWERS: list[tuple[pa.Schema, Answer, dict[str, Any]]] = [
    (
        embed_schema(WIDTH),
        Embedding(np.array([0.5, -1, 2], np.float32), tokens=4, truncated=True),
        {"embedding": [0.5, -1.0, 2.0], "tokens": 4, "truncated": True},
    ),
    (
        CLASSIFY_SCHEMA,
        Prediction(("a", "b"), (0.75, 0.25), tokens=4, truncated=False),
        {"label": "a", "score": 0.75, "labels": ["a", "b"], "scores": [0.75, 0.25], "tokens": 4},
    ),
    (
        WRITTEN_SCHEMA,
        GeneratedText("it\0is", "stop", tokens=4, output_tokens=2, truncated=False),
        {"output": "it\0is", "finish_reason": "stop", "tokens": 4, "output_tokens": 2},
    ),
]


def shard(count: int) -> pa.Table:
    """Rows with a text; the corpus reader could not read the last one."""
    records: list[dict[str, Any]] = [
        {"row": row, "line": row + 1, "id": f"id {row}", "text": f"text {row}"}
        for row in range(count)
    ]
    records[-1] |= {"text": None, "error_code": "bad_json", "error_message": "it is cut short"}
    return pa.Table.from_pylist(records, schema=SHARD_SCHEMA)


def part(schema: pa.Schema, answer: Answer, *, count: int = 4, keep_text: bool = False) -> pa.Table:
    """In this order: a row of an earlier part, answered rows, a failed row, an unreadable row."""
    results: dict[int, Answer | RowError] = dict.fromkeys(range(1, count - 2), answer)
    results[count - 2] = RowError(RowCode.NOT_FINITE, "not a number")
    earlier_part = result_table.table(
        shard(2), {0: answer}, schema=schema, earlier={}, keep_text=False
    ).to_pylist()
    return result_table.table(
        shard(count), results, schema=schema, earlier={0: earlier_part[0]}, keep_text=keep_text
    )


@pytest.mark.parametrize(("schema", "answer", "expected"), ANSWERS)
def test_a_part_has_every_row_once_with_its_result(
    schema: pa.Schema, answer: Answer, expected: dict[str, Any]
) -> None:
    table = part(schema, answer)
    assert table.schema.equals(schema)
    kept, answered, failed, bad = table.to_pylist()
    assert [record["row"] for record in (kept, answered, failed, bad)] == [0, 1, 2, 3]
    assert expected.items() <= kept.items()
    assert expected.items() <= answered.items()
    assert (failed["error_code"], bad["error_code"]) == ("not_finite", "bad_json")
    for record in (failed, bad):
        assert {record[name] for name in expected} == {None}
    assert {record["text"] for record in (kept, answered, failed, bad)} == {None}


@pytest.mark.parametrize(("schema", "answer", "expected"), ANSWERS)
def test_texts_are_kept_where_they_are_asked_for(
    schema: pa.Schema, answer: Answer, expected: dict[str, Any]
) -> None:
    del expected
    texts = part(schema, answer, keep_text=True)["text"].to_pylist()
    assert texts == ["text 0", "text 1", "text 2", None]


@pytest.mark.parametrize(("schema", "answer", "expected"), ANSWERS)
def test_result_rows_are_those_of_the_part_however_many(
    schema: pa.Schema, answer: Answer, expected: dict[str, Any]
) -> None:
    count = 2 * result_table.COPIED_ROWS + 3
    table = part(schema, answer, count=count)
    found = [
        dict(zip(COLUMNS, row, strict=True)) for row in result_table.result_rows("job_1", table)
    ]
    assert [record["row"] for record in found] == list(range(count))
    assert {record["job_id"] for record in found} == {"job_1"}
    assert found[-1]["error_code"] == "bad_json"
    for name in sorted(expected.keys() - {"labels", "scores", "output"}):
        assert found[count // 2][name] == expected[name]


def test_labels_are_a_map_to_their_scores_in_postgres() -> None:
    schema, answer, _ = ANSWERS[1]
    [first, *_] = result_table.result_rows("job_1", part(schema, answer))
    labels = dict(zip(COLUMNS, first, strict=True))["labels"]
    assert isinstance(labels, Jsonb)
    assert labels.obj == {"a": 0.75, "b": 0.25}


def test_a_nul_in_a_text_becomes_the_replacement_character_in_postgres() -> None:
    schema, answer, _ = ANSWERS[2]
    [first, *_] = result_table.result_rows("job_1", part(schema, answer))
    assert dict(zip(COLUMNS, first, strict=True))["output"] == "it\ufffdis"


def test_no_rows_are_a_part_without_rows() -> None:
    for schema, _, _ in ANSWERS:
        table = result_table.table(
            SHARD_SCHEMA.empty_table(), {}, schema=schema, earlier={}, keep_text=False
        )
        assert (table.num_rows, table.schema.equals(schema)) == (0, True)


def test_tokens_are_those_of_input_and_output() -> None:
    sums = [result_table.tokens(part(schema, answer)) for schema, answer, _ in ANSWERS]
    assert sums == [8, 8, 12]


def test_error_rows_are_counted_by_code_with_the_first_of_each() -> None:
    schema, answer, _ = ANSWERS[1]
    table = pa.concat_tables([part(schema, answer, count=6), part(schema, answer, count=4)])
    assert result_table.errors(table) == {
        "not_finite": {
            "rows": 2,
            "row": 4,
            "line": 5,
            "id": "id 4",
            "message": "not a number",
        },
        "bad_json": {
            "rows": 2,
            "row": 5,
            "line": 6,
            "id": "id 5",
            "message": "it is cut short",
        },
    }


def test_an_example_fits_into_the_ledger_however_long_its_id_is() -> None:
    schema, answer, _ = ANSWERS[1]
    rows = shard(4).set_column(3, "id", pa.array(["\0" * 10_000] * 4))
    table = result_table.table(rows, {0: answer}, schema=schema, earlier={}, keep_text=False)
    assert (
        result_table.errors(table)["bad_json"]["id"]
        == "\ufffd" * result_table.MAX_EXAMPLE_CHARACTERS
    )


def test_truncated_rows_near_ties_and_unknown_tokens_are_counted() -> None:
    near = Prediction(("a",), (0.5,), tokens=4, truncated=True, unknown=1, near_tie=True)
    far = Prediction(("b",), (0.9,), tokens=6, truncated=False)
    error = RowError(RowCode.NOT_FINITE, "not a number")
    found = result_table.quality({0: near, 1: far, 2: error, 3: near})
    assert found == QualityCounts(
        rows=3, rows_truncated=2, rows_near_tie=2, tokens=14, tokens_unknown=2
    )
    vector = Embedding(np.zeros(3, np.float32), tokens=4, truncated=True, unknown=3)
    text = GeneratedText("it", "stop", tokens=5, output_tokens=2, truncated=False, unknown=2)
    assert result_table.quality({0: vector, 1: text}) == QualityCounts(
        2, 1, 0, tokens=9, tokens_unknown=5
    )


def test_the_profile_has_scores_and_lengths_of_rows_with_a_result() -> None:
    answers: dict[int, Answer | RowError] = {
        row: Prediction(("a",), (score,), tokens=tokens, truncated=False)
        for row, (score, tokens) in enumerate([(1.0, 1), (0.96, 7), (0.51, 8), (0.0, 0)])
    }
    answers[4] = RowError(RowCode.NOT_FINITE, "not a number")
    made = result_table.table(
        shard(6), answers, schema=CLASSIFY_SCHEMA, earlier={}, keep_text=False
    )
    found = result_table.profile(made)
    assert found["scores"]["bins"] == {"0": 1, "0.5": 1, "0.95": 2}
    assert found["scores"]["total"] == pytest.approx(2.47)
    assert found["lengths"] == {"bins": {"0": 1, "1": 1, "4": 1, "8": 1}, "total": 16.0}


def test_a_part_without_a_result_has_no_profile() -> None:
    made = result_table.table(shard(1), {}, schema=CLASSIFY_SCHEMA, earlier={}, keep_text=False)
    assert result_table.profile(made) == {}
