"""Lines of a stream, page by page, in bounded memory even if one line is a gigabyte.

A line ends with LF; a CR before it belongs to the ending. Nothing else ends a line.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from jobs.corpora.text_stream import Readable

BLOCK = 512 * 2**10
PAGE_ROWS = 4096


@dataclass(frozen=True)
class LongLine:
    """A line over the limit, whose content was dropped."""

    quotes: int  # double quotes in it
    begin: bytes  # its first character that is not white space


@dataclass(frozen=True)
class Page:
    """Up to ``PAGE_ROWS`` consecutive lines; ``None`` stands for one line over the limit."""

    first_line: int
    lines: tuple[bytes, ...] | None


def pages(stream: Readable, *, max_row_bytes: int) -> Iterator[Page]:
    """All lines in order, in pages of about ``BLOCK`` bytes."""
    for number, block in numbered_blocks(stream, max_row_bytes=max_row_bytes):
        if isinstance(block, LongLine):
            yield Page(number, None)
        else:
            yield from split(number, block)


def split(number: int, block: bytes) -> Iterator[Page]:
    """The lines of a block whose first line has this number."""
    lines = block.split(b"\n")
    if not lines[-1]:
        lines.pop()
    for start in range(0, len(lines), PAGE_ROWS):
        yield Page(number + start, tuple(lines[start : start + PAGE_ROWS]))


def numbered_blocks(
    stream: Readable, *, max_row_bytes: int
) -> Iterator[tuple[int, bytes | LongLine]]:
    """Blocks, each with the number of its first line."""
    number = 1
    for block in blocks(stream, max_row_bytes=max_row_bytes):
        yield number, block
        if isinstance(block, LongLine):
            number += 1
        else:  # the last line may have no end, but then nothing follows
            number += block.count(b"\n")


def blocks(stream: Readable, *, max_row_bytes: int) -> Iterator[bytes | LongLine]:
    """Runs of whole lines, each at most ``max_row_bytes`` long without its LF.

    All but the last end with LF. At most one line and one block are held.
    """
    open_line = _OpenLine(max_row_bytes)
    # No more than max_row_bytes are read at once, so only the open line can be too long.
    while data := stream.read(min(BLOCK, max_row_bytes)):
        end = data.find(b"\n") + 1
        if not end:
            open_line.add(data)
            continue
        open_line.add(data[: end - 1])
        cut = data.rfind(b"\n") + 1
        if open_line.too_long:
            yield open_line.long()
            if cut > end:
                yield data[end:cut]
        else:
            yield open_line.joined(data[end - 1 : cut])
        open_line = _OpenLine(max_row_bytes)
        open_line.add(data[cut:])
    if open_line.length:
        yield open_line.long() if open_line.too_long else open_line.joined(b"")


class _OpenLine:
    """A line whose end has not been read yet; its content is dropped once it is too long."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pieces: list[bytes] = []
        self.length = 0
        self.quotes = 0
        self._begin = b""

    @property
    def too_long(self) -> bool:
        return self.length > self._limit

    def add(self, piece: bytes) -> None:
        self.length += len(piece)
        self._begin = self._begin or piece.lstrip()[:1]
        if not self.too_long:
            self._pieces.append(piece)
            return
        self.quotes += sum(kept.count(b'"') for kept in self._pieces) + piece.count(b'"')
        self._pieces.clear()

    def long(self) -> LongLine:
        return LongLine(self.quotes, self._begin)

    def joined(self, rest: bytes) -> bytes:
        return b"".join([*self._pieces, rest])
