"""Sums over chunks that are folded, so that what is asked of a job needs no chunk: pure.

They are those of the queries over rows: ``jobs.queries.jobs``, ``jobs.lookups.row_errors`` and
``jobs.lookups.profiles``. A test compares the two.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.states import ChunkState

ChunkRow = Mapping[str, Any]
"""The columns of a chunk by their names; JSON as a text."""


@dataclass(frozen=True)
class ChunkSums:
    """The sums, named as the columns of ``jobs.tables.ChunkFold``."""

    first_row: int
    end_row: int
    chunks: int
    pending: int
    done: int
    damaged: int
    rows: int
    rows_failed: int
    tokens: int
    seconds: float
    rows_checked: int
    rows_agreeing: int
    rows_answered: int
    rows_truncated: int
    rows_near_tie: int
    tokens_read: int
    tokens_unknown: int
    histogram: dict[str, int]
    errors: dict[str, Any]
    profile: dict[str, Any]


_OVER_LIVE = (
    *("rows_failed", "tokens", "rows_checked", "rows_agreeing", "rows_answered"),
    *("rows_truncated", "rows_near_tie", "tokens_read", "tokens_unknown"),
)


def of(chunks: Sequence[ChunkRow]) -> ChunkSums:
    """The sums over at least one chunk, in row order."""
    done = [chunk for chunk in chunks if chunk["state"] == ChunkState.DONE]
    live = [chunk for chunk in chunks if chunk["state"] != ChunkState.SPLIT]
    first_row = (live or chunks)[0]["first_row"]
    return ChunkSums(
        first_row=first_row,
        end_row=max((chunk["first_row"] + chunk["rows"] for chunk in live), default=first_row),
        chunks=len(chunks),
        pending=sum(chunk["state"] == ChunkState.PENDING for chunk in chunks),
        done=len(done),
        damaged=sum(chunk["damage"] is not None for chunk in chunks),
        rows=sum(chunk["rows"] for chunk in done),
        seconds=math.fsum(chunk["seconds"] or 0.0 for chunk in live),
        **{name: sum(chunk[name] or 0 for chunk in live) for name in _OVER_LIVE},
        histogram=_histogram(done),
        errors=_errors(done),
        profile=_profile(done),
    )


def _histogram(done: Iterable[ChunkRow]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for chunk in done:
        found.update(_read(chunk["histogram"]))
    return dict(found)


def _errors(done: Iterable[ChunkRow]) -> dict[str, Any]:
    """By code how many rows, and the example of the first chunk that has one."""
    found: dict[str, Any] = {}
    for chunk in done:
        for code, errors in _read(chunk["errors"]).items() if chunk["rows_failed"] else ():
            first = found.setdefault(code, {**errors, "rows": 0})
            first["rows"] += errors["rows"]
    return found


def _profile(done: Iterable[ChunkRow]) -> dict[str, Any]:
    """Of each measure its bins, and the total of the chunks that have one."""
    bins: dict[str, Counter[str]] = {}
    totals: dict[str, list[float]] = {}
    for chunk in done:
        for name, spread in _read(chunk["profile"]).items():
            bins.setdefault(name, Counter()).update(spread["bins"])
            if spread["total"] is not None:
                totals.setdefault(name, []).append(spread["total"])
    return {
        name: {
            "bins": dict(found),
            "total": math.fsum(totals[name]) if name in totals else None,
        }
        for name, found in bins.items()
    }


def _read(value: str | None) -> dict[str, Any]:
    return json.loads(value) or {} if value else {}
