"""Records of a delimited file, whole or broken, in bounded memory.

Quoting is strictly that of RFC 4180: a quote opens at the beginning of a field, doubles inside it,
and only a delimiter or the line's end follows the closing one. Otherwise:

- A record with wrong quoting costs its first line, which becomes a broken record, ``bad_csv``. The
  lines after it are read again, each as its own record, up to the line where the mistake showed,
  which begins a new record.
- A quoted field that stays open to the end of the file, or for ``MAX_RECORD_LIMITS`` times the
  limit, counts as wrong quoting.
- A record over the limit that does close is one broken record, ``row_too_long``. After a single
  line over the limit, the record continues while the number of quotes so far is odd. If it does not
  become even within ``MAX_RECORD_LIMITS`` times the limit, the record ends with that line.

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
from jobs.row_codes import RowCode

MAX_RECORD_LIMITS = 4


@dataclass(frozen=True)
class Broken:
    """A record or value that cannot be used, and why."""

    code: RowCode
    message: str


Record = tuple[int, list[str] | Broken]
"""The line on which it begins, and its fields; undecodable bytes become lone surrogates."""


Clean = Callable[[bytes, int], fast_path.Records | None]
"""Reads clean records from bytes that begin with a record, on the line of this number."""


class Parser:
    """Parses blocks of whole lines into records."""

    def __init__(self, *, delimiter: str, max_row_bytes: int) -> None:
        self.clean: Clean | None = None
        self._delimiter = delimiter
        self._limit = max_row_bytes
        self._pending = ""  # from the beginning of the first incomplete record
        self._line = 1  # on which that record begins
        self._skipping = False  # inside the quotes of a record that is already too long
        # A process-wide limit that is only ever raised: here the record's size bounds a field.
        csv.field_size_limit(max(csv.field_size_limit(), (MAX_RECORD_LIMITS + 2) * max_row_bytes))

    def read(self, blocks: Iterable[bytes | LongLine]) -> Iterator[Record | pa.RecordBatch]:
        """All records in order, the header included; blank lines are skipped.

        Once ``clean`` is set, the records that it reads come in batches.
        """
        for block in blocks:
            if isinstance(block, LongLine):
                yield from self._long_line(block)
            else:
                yield from self._read_clean(block)
                yield from self._advance(final=False)
        yield from self._advance(final=True)

    def _read_clean(self, block: bytes) -> Iterator[pa.RecordBatch]:
        """Read the pending text and the block at once if they are clean; else all is pending."""
        if self.clean is not None and not self._skipping:
            pending = self._pending.encode("utf-8", "surrogateescape")
            records = self.clean(pending + block, self._line)
            if records is not None:
                self._pending = records.rest.decode("utf-8", "surrogateescape")
                self._line += records.lines
                yield records.batch
                return
        self._pending += block.decode("utf-8", "surrogateescape")

    def _long_line(self, long: LongLine) -> Iterator[Record]:
        """The line belongs to the open record, if there is one, and makes it too long."""
        if not self._skipping:
            yield self._line, Broken(RowCode.ROW_TOO_LONG, too_long_message(self._limit))
        was_open = self._skipping or bool(self._pending)
        self._line += self._pending.count("\n") + 1
        self._pending = ""
        self._skipping = was_open != bool(long.quotes % 2)

    def _advance(self, *, final: bool) -> Iterator[Record]:
        patient = not final and len(self._pending) <= MAX_RECORD_LIMITS * self._limit
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
        """Keep the rest for later if it only lacks the end of a quoted field."""
        start = feed.tell()
        rest = feed.read()
        feed.seek(start)
        if isinstance(self._single(rest + '"'), Broken):
            return False
        self._pending = rest
        return True

    def _skip(self, *, patient: bool) -> bool:
        """Drop lines up to the one that closes the quotes; false if it has not come yet."""
        feed = io.StringIO(self._pending, newline="\n")
        for count, line in enumerate(feed, 1):
            if line.count('"') % 2:
                self._pending = feed.read()
                self._line += count
                self._skipping = False
                return True
        self._skipping = patient  # never closed: the skipped lines are records after all
        return not patient

    def _broken(self, feed: io.StringIO, count: int, reason: str) -> Iterator[Record]:
        """The first line is lost; each line between it and the last is its own record."""
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
        """The fields, or ``Broken`` if a record of several lines exceeds the limit."""
        if count > 1:
            size = sum(len(field.encode("utf-8", "surrogateescape")) for field in fields)
            if size > self._limit:
                return Broken(RowCode.ROW_TOO_LONG, too_long_message(self._limit))
        return fields


def _explained(reason: str) -> str:
    if "unexpected end" in reason:
        return "a quoted field that begins here is never closed"
    if "new-line" in reason:
        return "there is a CR in an unquoted field; lines must end with LF or CR LF"
    return f"{reason}; a quote inside a quoted field must be doubled"
