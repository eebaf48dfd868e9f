"""Headers of zstd frames (RFC 8878), whose window size decides whether a frame can be read.

The decompressor keeps a window of each frame in memory and refuses one over 128 MiB, its default.
``zstd --long=28`` and more, or ``--ultra`` with a long file, need larger windows.
"""

from __future__ import annotations

from collections.abc import Iterator

MAGIC = b"\x28\xb5\x2f\xfd"
MAX_WINDOW = 128 * 2**20
"""Bytes: the decompressor's limit (``ZSTD_WINDOWLOG_LIMIT_DEFAULT``)."""

_MIB = 2**20
_SINGLE_SEGMENT = 0x20


def too_wide(data: bytes) -> str:
    """Why a frame that begins in these bytes is refused, and what to do."""
    wide = next((size for size in _windows(data) if size > MAX_WINDOW), None)
    window = f"a window of {wide / _MIB:,.0f} MiB" if wide else "too large a window"
    return (
        f"its zstd frame needs {window} in memory, and the limit is {MAX_WINDOW // _MIB} MiB; "
        "compress it again without --long (or with --long=27 at most)"
    )


def _windows(data: bytes) -> Iterator[int]:
    """The window of each frame whose header is in the data."""
    start = data.find(MAGIC)
    while start >= 0:
        size = _window(data[start + len(MAGIC) :])
        if size is not None:
            yield size
        start = data.find(MAGIC, start + 1)


def _window(header: bytes) -> int | None:
    """The window size of a frame, from what follows its magic number."""
    if not header:
        return None
    descriptor = header[0]
    if descriptor & _SINGLE_SEGMENT:
        return _content_size(header)
    if len(header) < 2:  # noqa: PLR2004 - the descriptor and the window's byte
        return None
    exponent, mantissa = header[1] >> 3, header[1] & 7
    base: int = 2 ** (10 + exponent)
    return base + base // 8 * mantissa


def _content_size(header: bytes) -> int | None:
    """The size of the content, which is the window of a single segment."""
    begin = 1 + (0, 1, 2, 4)[header[0] & 3]  # after the dictionary's id
    width = (1, 2, 4, 8)[header[0] >> 6]
    field = header[begin : begin + width]
    if len(field) < width:
        return None
    return int.from_bytes(field, "little") + (256 if width == 2 else 0)  # noqa: PLR2004
