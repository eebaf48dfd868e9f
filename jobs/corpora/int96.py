"""INT96, the timestamps of older Parquet writers, whose range is wider than that of finer units.

Arrow silently reads a time outside the range of its unit as another time. So the column is read in
seconds first, which can represent every time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

_SECONDS = {"ns": 2**63 // 10**9 - 1, "us": 2**63 // 10**6 - 1}
"""How far from 1970 a unit reaches; the finest unit first."""


def has_int96(schema: pq.ParquetSchema, name: str) -> bool:
    """Whether the column, or a field within it, is of this type."""
    leaves = (schema.column(index) for index in range(len(schema)))
    return any(leaf.physical_type == "INT96" and is_within(leaf.path, name) for leaf in leaves)


def is_within(path: str, name: str) -> bool:
    """Whether the leaf at this path is the column of this name, or a part of it."""
    return path == name or path.startswith(f"{name}.")


def finest_unit(columns: Iterable[pa.Array]) -> str | None:
    """The finest unit that can represent all times of the columns, which were read in seconds."""
    furthest = max((bound for column in columns for bound in _bounds(column)), default=0)
    return next((unit for unit, reach in _SECONDS.items() if furthest <= reach), None)


def _bounds(values: pa.Array) -> Iterator[int]:
    """Distances from 1970, in seconds, of the earliest and latest times within the column."""
    if pa.types.is_timestamp(values.type):
        seconds = values.cast(pa.timestamp("s"), safe=False).cast(pa.int64())
        bounds = pc.min_max(seconds).as_py().values()
        yield from (abs(bound) for bound in bounds if bound is not None)
    elif pa.types.is_map(values.type):
        yield from _bounds(values.keys)
        yield from _bounds(values.items)
    elif pa.types.is_nested(values.type):
        parts = values.flatten()
        for part in parts if isinstance(parts, list) else [parts]:
            yield from _bounds(part)
