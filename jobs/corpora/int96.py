"""INT96, the timestamps of older Parquet writers, whose range is wider than that of any unit.

Arrow reads a time outside of what its unit can tell as another one, in silence. So it is read in
seconds first, which can tell them all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

_SECONDS = {"ns": 2**63 // 10**9 - 1, "us": 2**63 // 10**6 - 1}
"""Before and after 1970, that a unit can tell; the finest first."""


def is_in(schema: pq.ParquetSchema, name: str) -> bool:
    """Whether the column, or a field within it, is of this type."""
    leaves = (schema.column(place) for place in range(len(schema)))
    return any(
        leaf.physical_type == "INT96" and (leaf.path == name or leaf.path.startswith(f"{name}."))
        for leaf in leaves
    )


def unit(columns: Iterable[pa.Array]) -> str | None:
    """The finest unit that can tell each time of the columns, which were read in seconds."""
    furthest = max((each for column in columns for each in _seconds(column)), default=0)
    return next((unit for unit, most in _SECONDS.items() if furthest <= most), None)


def _seconds(values: pa.Array) -> Iterator[int]:
    """How far from 1970 the times within the column lie, at most."""
    if pa.types.is_timestamp(values.type):
        seconds = values.cast(pa.timestamp("s"), safe=False).cast(pa.int64())
        found = pc.min_max(seconds).as_py()
        yield from (abs(each) for each in found.values() if each is not None)
    elif pa.types.is_map(values.type):
        yield from _seconds(values.keys)
        yield from _seconds(values.items)
    elif pa.types.is_nested(values.type):
        parts = values.flatten()
        for part in parts if isinstance(parts, list) else [parts]:
            yield from _seconds(part)
