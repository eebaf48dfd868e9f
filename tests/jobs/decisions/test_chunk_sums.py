"""Sums over folded chunks are those over their rows."""

from __future__ import annotations

import json
from typing import Any

from jobs.decisions import chunk_sums

COUNTS = (
    *("tokens", "rows_checked", "rows_agreeing", "rows_answered", "rows_truncated"),
    *("rows_near_tie", "tokens_read", "tokens_unknown"),
)


def chunk(first_row: int, rows: int = 5, **values: Any) -> dict[str, Any]:
    """A chunk that is done, all of whose rows are good."""
    counts = dict.fromkeys(COUNTS, 1)
    usual = {"state": "done", "rows_failed": 0, "seconds": 0.1, "damage": None, "errors": "{}"}
    texts = {"histogram": json.dumps({"good": rows}), "profile": None}
    return {"first_row": first_row, "rows": rows, **usual, **texts, **counts, **values}


def failed(row: int, rows: int) -> dict[str, Any]:
    return {"rows": rows, "row": row, "message": f"of {row}"}


def test_counts_are_of_chunks_that_were_not_split_and_rows_of_those_that_are_done() -> None:
    found = chunk_sums.of(
        [
            chunk(0),
            chunk(5, state="split", rows_failed=None, histogram=None),
            chunk(5, 2, state="pending", rows_failed=None, histogram=None, damage="gone"),
            chunk(7, 3, seconds=0.2),
        ]
    )
    assert (found.first_row, found.end_row, found.chunks) == (0, 10, 4)
    assert (found.pending, found.done, found.damaged, found.rows) == (1, 2, 1, 8)
    assert (found.tokens, found.tokens_read) == (3, 3)
    assert found.seconds == 0.4
    assert found.histogram == {"good": 8}


def test_the_example_of_an_error_is_that_of_the_first_chunk_that_has_one() -> None:
    errors = [{"bad": failed(0, 1)}, {"bad": failed(5, 2), "worse": failed(6, 3)}]
    found = chunk_sums.of(
        [
            chunk(row, rows_failed=1, errors=json.dumps(each))
            for row, each in zip((0, 5), errors, strict=True)
        ]
    )
    assert found.errors == {"bad": failed(0, 3), "worse": failed(6, 3)}


def test_a_measure_that_no_chunk_has_is_none_of_the_fold() -> None:
    scores = {"scores": {"bins": {"0.5": 2}, "total": 1.5}}
    found = chunk_sums.of([chunk(0, profile=json.dumps(scores)), chunk(5)])
    assert found.profile == scores


def test_a_fold_of_chunks_that_were_all_split_has_no_rows() -> None:
    found = chunk_sums.of([chunk(5, state="split")])
    assert (found.first_row, found.end_row, found.rows) == (5, 5, 0)
