"""The columns that a kind's results have beside those that every kind has.

They are named here without Arrow, which the command line does not load; ``jobs.results.schemas``
makes the schema of a part of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ColumnType(StrEnum):
    """What a column holds."""

    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    FLAG = "flag"
    TEXTS = "texts"
    NUMBERS = "numbers"
    VECTOR = "vector"  # of the width that the planner wrote down
    ATTRIBUTIONS = "attributions"  # what each token contributes to a label


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a kind's results; null on an error row."""

    name: str
    type: ColumnType


TOKENS = Column("tokens", ColumnType.INTEGER)
"""Tokens of the row that the model read."""

TRUNCATED = Column("truncated", ColumnType.FLAG)
"""Whether the row was longer than the model's window."""

WRITTEN = (
    Column("output", ColumnType.TEXT),  # what the model wrote
    Column("finish_reason", ColumnType.TEXT),  # stop: the text ended; length: at max_new_tokens
    TOKENS,
    Column("output_tokens", ColumnType.INTEGER),  # that it wrote, the end-of-text token included
    TRUNCATED,
)
"""The columns of a kind whose model writes a text."""
