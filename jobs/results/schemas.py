"""The columns of a part: the results of one chunk, in Parquet.

Every row of the chunk is one row of its part. A row without a result has an error code and message.
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from jobs.kinds.result_columns import Column, ColumnType

_ROW = (
    ("row", pa.int64()),
    ("line", pa.int64()),
    ("id", pa.string()),
    ("text", pa.string()),  # null unless the job keeps texts
)
_ERROR = (("error_code", pa.string()), ("error_message", pa.string()))

_SOURCE = ("source", pa.string())  # the object with that line, of a corpus that may have several

ROW_COLUMNS = tuple(name for name, _ in (*_ROW, _SOURCE))
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


def result_schema(
    columns: Iterable[Column], *, width: int | None, with_source: bool = False
) -> pa.Schema:
    """The schema of the parts and outputs of a job whose kind has these columns.

    ``width`` is the length of a vector; ``with_source``: each row has the object that it is from.
    """
    own = [(column.name, _type(column.type, width=width)) for column in columns]
    source = [_SOURCE] if with_source else []
    return pa.schema([*_ROW[:2], *source, *_ROW[2:], *own, *_ERROR])


def _type(type_: ColumnType, *, width: int | None) -> pa.DataType:
    if type_ is not ColumnType.VECTOR:
        return _TYPES[type_]
    assert width is not None, "the planner writes the width down"
    return pa.list_(pa.float32(), width)
