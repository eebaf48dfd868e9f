"""Records of a delimited file, whole or broken, in bounded memory.

Quoting is that of RFC 4180, strictly: a quote opens at the beginning of a field, doubles inside,
and only a delimiter or the line's end follows it. What happens otherwise:

- A record whose quoting is wrong costs its first line: that is a broken record, ``bad_csv``. The
  lines after it are read again, each as a record of its own, up to the line where the mistake
  showed, which begins a new record.
- A quoted field that stays open to the end of the file, or for ``PATIENCE`` times the limit, is
  wrong quoting of that kind.
- A record over the limit that does close is one broken record, ``row_too_long``. After a single
  line over the limit, the record goes on while the quotes passed are odd in number; if they do not
  become even within ``PATIENCE`` times the limit, it ends with that line.

Every line is read a bounded number of times, whatever the quotes.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from jobs.corpora import fast_path
from jobs.corpora.batches import too_long_message
from jobs.corpora.lines import LongLine
from jobs.results.schemas import RowCode

PATIENCE = 4


@dataclass(frozen=True)
class Broken:
    """A record that cannot be used, and why."""

    code: RowCode
    message: str


Record = tuple[int, list[str] | Broken]
"""The line on which it begins, and its fields; undecodable bytes are half surrogate pairs."""


Clean = Callable[[bytes, int], fast_path.Records | None]
"""Takes what is clean of bytes that begin with a record, on a line of this number."""


class Parser:
    """Reads blocks of whole lines as records."""

    def __init__(self, *, delimiter: str, max_row_bytes: int) -> None:
        self.clean: Clean | None = None
        self._delimiter = delimiter
        self._limit = max_row_bytes
        self._pending = ""  # from the beginning of the first record that is not whole yet
        self._line = 1  # on which that begins
        self._skipping = False  # inside the quotes of a record that is too long already
        # A process-wide limit, only ever raised: what bounds a field here is the record's size.
        csv.field_size_limit(max(csv.field_size_limit(), (PATIENCE + 2) * max_row_bytes))

    def read(self, blocks: Iterable[bytes | LongLine]) -> Iterator[Record | pa.RecordBatch]:
        """All records in order, that of the header too; blank lines are none.

        Once ``clean`` is set, records that it takes come in batches.
        """
        for block in blocks:
            if isinstance(block, LongLine):
                yield from self._long_line(block)
            else:
                yield from self._cleanly(block)
                yield from self._advance(final=False)
        yield from self._advance(final=True)

    def _cleanly(self, block: bytes) -> Iterator[pa.RecordBatch]:
        """Take what is clean of all that is there now; the rest is pending."""
        if self.clean is not None and not self._skipping:
            begun = self._pending.encode("utf-8", "surrogateescape")
            taken = self.clean(begun + block, self._line)
            if taken is not None:
                self._pending = taken.rest.decode("utf-8", "surrogateescape")
                self._line += taken.lines
                yield taken.batch
                return
        self._pending += block.decode("utf-8", "surrogateescape")

    def _long_line(self, long: LongLine) -> Iterator[Record]:
        """The line belongs to the open record, if one is open, and makes it too long."""
        if not self._skipping:
            yield self._line, Broken(RowCode.ROW_TOO_LONG, too_long_message(self._limit))
        was_open = self._skipping or bool(self._pending)
        self._line += self._pending.count("\n") + 1
        self._pending = ""
        self._skipping = was_open != bool(long.quotes % 2)

    def _advance(self, *, final: bool) -> Iterator[Record]:
        patient = not final and len(self._pending) <= PATIENCE * self._limit
        if self._skipping and not self._skip(patient=patient):
            return
        feed = io.StringIO(self._pending, newline="\n")
        end = len(self._pending)
        self._pending = ""
        reader = csv.reader(feed, delimiter=self._delimiter, strict=True)
        while True:
            start, before = feed.tell(), reader.line_num
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                at_end = feed.tell() == end
                feed.seek(start)
                if at_end and patient and self._keep_open(feed):
                    return
                yield from self._broken(feed, reader.line_num - before, str(error))
                continue
            count = reader.line_num - before
            if fields:
                yield self._line, self._fitting(fields, count)
            self._line += count

    def _keep_open(self, feed: io.StringIO) -> bool:
        """Keep the rest for later if all that it lacks is the end of a quoted field."""
        start = feed.tell()
        rest = feed.read()
        feed.seek(start)
        if isinstance(self._single(rest + '"'), Broken):
            return False
        self._pending = rest
        return True

    def _skip(self, *, patient: bool) -> bool:
        """Drop lines up to the one that closes the quotes; false: it has not come yet."""
        feed = io.StringIO(self._pending, newline="\n")
        for count, line in enumerate(feed, 1):
            if line.count('"') % 2:
                self._pending = feed.read()
                self._line += count
                self._skipping = False
                return True
        self._skipping = patient  # never closed: what was passed over are records after all
        return not patient

    def _broken(self, feed: io.StringIO, count: int, reason: str) -> Iterator[Record]:
        """The first line is lost; those between it and the last are records of their own."""
        for index in range(max(count - 1, 1)):
            line = feed.readline()
            if index == 0:
                yield self._line, Broken(RowCode.BAD_CSV, _explained(reason))
            elif fields := self._single(line):
                yield self._line, fields
            self._line += 1

    def _single(self, line: str) -> list[str] | Broken:
        try:
            feed = io.StringIO(line, newline="\n")
            return next(csv.reader(feed, delimiter=self._delimiter, strict=True), [])
        except csv.Error as error:
            return Broken(RowCode.BAD_CSV, _explained(str(error)))

    def _fitting(self, fields: list[str], count: int) -> list[str] | Broken:
        """A record of one line fits, or it would be a ``LongLine``."""
        if count > 1:
            size = sum(len(field.encode("utf-8", "surrogateescape")) for field in fields)
            if size > self._limit:
                return Broken(RowCode.ROW_TOO_LONG, too_long_message(self._limit))
        return fields


def _explained(reason: str) -> str:
    if "unexpected end" in reason:
        return "a quoted field that begins here is never closed"
    if "new-line" in reason:
        return "a CR stands inside an unquoted field; lines must end with LF or CR LF"
    return f"{reason}; a quote inside a quoted field must be doubled"
