"""Lines of a stream, a page at a time, in bounded memory even when one line is a gigabyte.

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
    """A line over the limit, not kept."""

    quotes: int  # how many double quotes it held
    begin: bytes  # its first character that is no white space


@dataclass(frozen=True)
class Page:
    """Up to ``PAGE_ROWS`` neighbouring lines; none stands for one line over the limit."""

    first_line: int
    lines: tuple[bytes, ...] | None


def pages(stream: Readable, *, max_row_bytes: int) -> Iterator[Page]:
    """All lines in order, about ``BLOCK`` bytes a page."""
    for number, block in numbered(stream, max_row_bytes=max_row_bytes):
        if isinstance(block, LongLine):
            yield Page(number, None)
        else:
            yield from split(number, block)


def split(number: int, block: bytes) -> Iterator[Page]:
    """The lines of a block, the first of which is ``number``."""
    lines = block.split(b"\n")
    if not lines[-1]:
        lines.pop()
    for start in range(0, len(lines), PAGE_ROWS):
        yield Page(number + start, tuple(lines[start : start + PAGE_ROWS]))


def numbered(stream: Readable, *, max_row_bytes: int) -> Iterator[tuple[int, bytes | LongLine]]:
    """Blocks, each with the number of its first line."""
    number = 1
    for block in blocks(stream, max_row_bytes=max_row_bytes):
        yield number, block
        if isinstance(block, LongLine):
            number += 1
        else:  # a last line may have no end, but then nothing follows
            number += block.count(b"\n")


def blocks(stream: Readable, *, max_row_bytes: int) -> Iterator[bytes | LongLine]:
    """Runs of whole lines, each at most ``max_row_bytes`` long without its LF.

    All but the last end with LF. No more than one line and one block are held.
    """
    begun = _Begun(max_row_bytes)
    while data := stream.read(min(BLOCK, max_row_bytes)):  # so only a begun line can be too long
        end = data.find(b"\n") + 1
        if not end:
            begun.add(data)
            continue
        begun.add(data[: end - 1])
        cut = data.rfind(b"\n") + 1
        if begun.too_long:
            yield begun.long()
            if cut > end:
                yield data[end:cut]
        else:
            yield begun.joined(data[end - 1 : cut])
        begun = _Begun(max_row_bytes)
        begun.add(data[cut:])
    if begun.length:
        yield begun.long() if begun.too_long else begun.joined(b"")


class _Begun:
    """A line whose end has not been read yet; lets go of it once it is too long."""

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
