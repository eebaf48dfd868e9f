"""The ``Range`` and ``If-Range`` headers of a download (RFC 9110, section 14): one range of bytes.

What a server may ignore is ignored, and the whole object sent: several ranges at once, another
unit, a header that cannot be read, an ``If-Range`` that names something else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from jobs.errors import RangeUnsatisfiable

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


@dataclass(frozen=True)
class ByteRange:
    """Bytes from ``start`` up to and without ``end``."""

    start: int
    end: int


def requested(headers: Mapping[str, str], *, size: int, etag: str | None) -> ByteRange | None:
    """The range that a request asks for; ``None``: the whole object.

    Raises ``RangeUnsatisfiable`` for one that begins behind the last byte.
    """
    header, condition = headers.get("range", ""), headers.get("if-range")
    found = _RANGE.fullmatch(header.replace(" ", "").lower())
    if found is None or found[0] == "bytes=-" or (condition is not None and condition != etag):
        return None
    first, last = found[1], found[2]
    if first and last and int(last) < int(first):
        return None
    start = int(first) if first else max(size - int(last), 0)
    end = min(int(last) + 1, size) if first and last else size
    if start >= end:
        raise RangeUnsatisfiable(
            f"the range {header!r} begins behind the last byte; there are {size} bytes", size=size
        )
    return ByteRange(start, end)
