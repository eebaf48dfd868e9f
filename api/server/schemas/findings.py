"""What was found about a job's rows: which failed, and what makes other answers doubtful."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel

from jobs.decisions import failure_limit


class RowExample(BaseModel):
    """The first error row of a code in the order of the corpus."""

    row: int
    line: int | None
    id: str | None
    message: str
    source: str | None = None  # the object with that line; null: the corpus is one object


class RowErrors(BaseModel):
    """Error rows of one code (docs/rows.md)."""

    code: str
    rows: int
    example: RowExample

    @classmethod
    def of(cls, found: failure_limit.RowErrorGroup) -> Self:
        """Those of one code."""
        example = RowExample(
            row=found.row,
            line=found.line,
            id=found.id,
            message=found.message,
            source=found.source,
        )
        return cls(code=found.code, rows=found.rows, example=example)


class Quality(BaseModel):
    """Counts over the rows with a result of the model; a retried row counts each time."""

    rows: int
    rows_truncated: int
    rows_near_tie: int
    tokens: int
    tokens_unknown: int


class JobWarning(BaseModel):
    """Something to look into before the results are trusted."""

    code: str
    message: str
