"""What the API answers about the objects that a job reads."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel

from jobs import tables


class Input(BaseModel):
    """One object of a corpus."""

    object: Literal["input"] = "input"
    split: str  # which corpus: `rows` of bulk work; `train`, `validation`, `test`, `promotion`
    index: int  # in the order of reading
    name: str  # a file's id, a URI, or `sql:` and the name of a source
    version: str  # changes when the content does
    filename: str | None  # of an uploaded file
    bytes: int
    rows: int | None  # bad ones too; null: not read to the end yet
    sha256: str | None  # null: not read to the end yet, or a file of the hub
    query: dict[str, Any] | None  # of rows of a SQL source: its text and bounds; null: of others

    @classmethod
    def of(cls, row: tables.JobInput) -> Self:
        """One object."""
        return cls(
            split=row.split,
            index=row.index,
            name=row.name,
            version=row.version,
            filename=row.filename,
            bytes=row.bytes,
            rows=row.rows,
            sha256=row.sha256,
            query=row.query,
        )


class InputPage(BaseModel):
    """Objects in the order of reading; ``next`` is the ``after`` of the next page."""

    object: Literal["list"] = "list"
    data: list[Input]
    has_more: bool
    next: int
