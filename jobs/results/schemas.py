"""The columns of a shard and of a part, and the codes of rows that could not be done.

A shard is what the planner wrote down of a corpus; a part is the results of one chunk. Both are
Parquet. In bulk work every corpus row is one shard row, a bad one too: it carries its error with
it, and becomes an error row of the part. The shards of a training job hold its good rows alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

import pyarrow as pa

from jobs.kinds.columns import Column, ColumnType


class RowCode(StrEnum):
    """Stable codes of error rows; part of the public contract, documented in docs/rows.md."""

    BAD_JSON = "bad_json"
    BAD_ENCODING = "bad_encoding"
    BAD_CSV = "bad_csv"
    NOT_AN_OBJECT = "not_an_object"
    MISSING_TEXT = "missing_text"
    WRONG_TYPE = "wrong_type"
    EMPTY_TEXT = "empty_text"
    MISSING_TARGET = "missing_target"
    ROW_TOO_LONG = "row_too_long"
    NO_TOKENS = "no_tokens"
    TOO_MANY_TOKENS = "too_many_tokens"
    BAD_CHAT = "bad_chat"
    BAD_SETTINGS = "bad_settings"
    FILE_REFUSED = "file_refused"
    FILE_UNREADABLE = "file_unreadable"
    PIPELINE_FAILED = "pipeline_failed"
    NOT_FINITE = "not_finite"
    OUT_OF_MEMORY = "out_of_memory"
    ROW_FAILED = "row_failed"
    ROW_CRASHED_WORKER = "row_crashed_worker"


CORPUS_SCHEMA = pa.schema(
    [
        ("line", pa.int64()),  # 1-based line (text formats) or row (Parquet) where the row begins
        ("id", pa.string()),  # the id column as text; null: none asked for, or unreadable
        ("text", pa.string()),  # null if and only if error_code is set
        ("error_code", pa.string()),
        ("error_message", pa.string()),
    ]
)
"""What a reader yields, batch by batch."""

LABELLED_SCHEMA = pa.schema(
    [
        *CORPUS_SCHEMA,
        # what stands beside the text: what the model should answer (a label, a JSON array of
        # labels, or a text), or the second text of a pair, or a JSON object of settings; null on an
        # error row, and where a training corpus for `generate` is plain text
        ("target", pa.string()),
    ]
)
"""What a reader yields of a corpus of which two columns are read."""

SHARD_SCHEMA = pa.schema([("row", pa.int64()), *CORPUS_SCHEMA])
"""``row`` is the 0-based place in the whole corpus. Of a corpus of which two columns are read, the
shards have ``target`` too."""

TRAINING_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),  # 0-based place in its corpus
        ("line", pa.int64()),
        ("text", pa.string()),
        ("target", pa.string()),  # as in LABELLED_SCHEMA
    ]
)
"""The columns of a training job's shards; rows with an error are counted instead."""

_ROW = (
    ("row", pa.int64()),
    ("line", pa.int64()),
    ("id", pa.string()),
    ("text", pa.string()),  # null unless the job keeps texts
)
_ERROR = (("error_code", pa.string()), ("error_message", pa.string()))

ROW_COLUMNS = tuple(name for name, _ in _ROW)
"""The columns of a result that identify its row; the others hold the result."""

ATTRIBUTIONS = pa.list_(
    pa.struct(
        [
            ("token", pa.string()),  # the text that the token stands for; special ones by name
            ("start", pa.int32()),  # its first character in the row's text; null: it is special
            ("end", pa.int32()),  # the character after its last
            ("weight", pa.float32()),  # above 0: for the label; the sum is what the text adds
        ]
    )
)
"""What each token that the model read contributes to the label, in the order of the text."""

_TYPES = {
    ColumnType.TEXT: pa.string(),
    ColumnType.INTEGER: pa.int32(),
    ColumnType.NUMBER: pa.float32(),
    ColumnType.FLAG: pa.bool_(),
    ColumnType.TEXTS: pa.list_(pa.string()),
    ColumnType.NUMBERS: pa.list_(pa.float32()),
    ColumnType.ATTRIBUTIONS: ATTRIBUTIONS,
}


def result_schema(columns: Iterable[Column], *, width: int | None) -> pa.Schema:
    """The schema of the parts and outputs of a job whose kind has these columns.

    ``width`` is the length of a vector.
    """
    own = [(column.name, _type(column.type, width=width)) for column in columns]
    return pa.schema([*_ROW, *own, *_ERROR])


def _type(type_: ColumnType, *, width: int | None) -> pa.DataType:
    if type_ is not ColumnType.VECTOR:
        return _TYPES[type_]
    assert width is not None, "the planner writes the width down"
    return pa.list_(pa.float32(), width)
