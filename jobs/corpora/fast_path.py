"""The fast path: Arrow reads clean blocks at once; every other block is read row by row.

Arrow is more lenient than ``jsonl`` and ``records``, and does not report which row it refuses. So a
block counts as clean only if neither could read it differently: its lines are whole rows, its
quotes are where RFC 4180 requires them, and every row comes out with a text. ``None`` means that
the block is not clean.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json

from jobs.corpora.batches import MAX_BYTES, MAX_ROWS, encodable
from jobs.corpora.schemas import CORPUS_SCHEMA

_ARROW_NUMBERS = (re.compile(rb"Inf[\s,}\]]"), re.compile(rb"-NaN[\s,}\]]"))
"""Numbers that only Arrow accepts, not Python."""

MIN_BLOCK = 32 * 2**10
"""Bytes; for a smaller block Python is faster."""

_MAX_FIELDS = 1_000
"""Of a record: each field costs Arrow time in every block, even if it is not read."""

_TEN_DIGITS = re.compile(rb"\d{10}")
_SAFE_BRACKETS = 400
"""Of one line; this many cannot be nested so deep that Python refuses them."""
_SAFE_BYTES = 2 * _SAFE_BRACKETS
"""Bytes; a line up to this length has no room for more brackets, each with its closing one."""

_ID_TYPES = (pa.string(), pa.int64())


def batch(lines: pa.Array, ids: pa.Array, texts: pa.Array) -> pa.RecordBatch | None:
    """Rows in the corpus's schema; ``None`` if a text is missing, blank or not Unicode."""
    if texts.null_count or not _is_valid(texts) or _has_blank(texts):
        return None
    no_errors = pa.nulls(len(texts), pa.string())
    columns = [lines, ids, texts.cast(pa.string()), no_errors, no_errors]
    return pa.RecordBatch.from_arrays(columns, schema=CORPUS_SCHEMA)


def pages(whole: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The rows of a block in batches of at most ``MAX_ROWS``."""
    for start in range(0, whole.num_rows, MAX_ROWS):
        yield whole.slice(start, MAX_ROWS)


def _is_valid(texts: pa.Array) -> bool:
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _has_blank(texts: pa.Array) -> bool:
    blank = pc.or_(pc.equal(pc.binary_length(texts), 0), pc.utf8_is_space(texts))
    return bool(pc.any(blank).as_py())


def objects(block: bytes, line: int, *, text: str, row_id: str | None) -> pa.RecordBatch | None:
    """Lines of JSON objects, the first of which is ``line``; ids are strings or integers."""
    names = [text] if row_id is None else [text, row_id]
    if len(block) < MIN_BLOCK or len(set(names)) < len(names) or not all(map(encodable, names)):
        return None
    rows = block.removesuffix(b"\n").split(b"\n")
    if not _are_objects(rows) or not _is_unicode(block):
        return None
    # Without other fields, nothing can hide in them: the checks are needed only with "ignore".
    for others in ("error", "ignore"):
        if others == "ignore" and _may_be_refused(block, rows):
            return None
        for id_type in (None,) if row_id is None else _ID_TYPES:
            fields = [(text, pa.string())] + ([] if id_type is None else [(row_id, id_type)])
            table = _json(block, pa.schema(fields), others=others)
            if table is not None and table.num_rows == len(rows):
                ids = pa.nulls(len(rows)) if id_type is None else table[row_id].combine_chunks()
                lines = pa.arange(line, line + len(rows))
                return batch(lines, ids.cast(pa.string()), table[text].combine_chunks())
    return None


def _are_objects(lines: Sequence[bytes]) -> bool:
    """Whether each line is one object, or broken in a way that Arrow notices too.

    A closing brace before the line's end and an opening brace after it cannot both be inside one
    object or string. So no row crosses a line's end, and if rows and lines are equal in number,
    each line is one row.
    """
    if not min(map(len, lines)) or set(map(itemgetter(0), lines)) != set(b"{"):
        return False
    ends = set(map(itemgetter(-1), lines))
    return ends == set(b"}") or (
        ends == set(b"\r") and set(map(itemgetter(-2), lines)) == set(b"}")
    )


def _is_unicode(block: bytes) -> bool:
    try:
        block.decode()
    except UnicodeDecodeError:
        return False
    return True


def _may_be_refused(block: bytes, lines: Sequence[bytes]) -> bool:
    """Whether a line may contain something that Arrow accepts and Python does not.

    That is a number of 4,300 digits (every 400th byte of it gives ten digits), 1,000 nested
    brackets, or another name of infinity.
    """
    return (
        bool(_TEN_DIGITS.search(block[::400]))
        or any(number.search(block) for number in _ARROW_NUMBERS)
        or any(
            line.count(b"[") + line.count(b"{") > _SAFE_BRACKETS
            for line in (lines if max(map(len, lines)) > _SAFE_BYTES else ())
            if len(line) > _SAFE_BYTES
        )
    )


def _json(block: bytes, schema: pa.Schema, *, others: str) -> pa.Table | None:
    parsing = pa.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior=others)
    reading = pa.json.ReadOptions(use_threads=False, block_size=len(block) + 1)
    try:
        return pa.json.read_json(pa.BufferReader(block), reading, parsing)
    except (pa.ArrowInvalid, UnicodeDecodeError):  # the latter: a message that quotes the row
        return None


class Records(NamedTuple):
    """The records that were read from a block."""

    batch: pa.RecordBatch
    lines: int
    rest: bytes  # the last record, if it is not complete


def records(
    block: bytes,
    line: int,
    *,
    delimiter: str,
    max_row_bytes: int,
    width: int,
    text: int,
    row_id: int | None,
) -> Records | None:
    """Records of a CSV file, the first of which begins on ``line``.

    Each record has ``width`` fields; those with the indexes ``text`` and ``row_id`` are read. Each
    line is known to have at most ``max_row_bytes``; a record of several lines may have more.
    """
    if not MIN_BLOCK <= len(block) <= MAX_BYTES or width > _MAX_FIELDS:
        return None
    if block.startswith(b"\xef\xbb\xbf"):  # Arrow would skip it
        return None
    whole, pieces = block, block.split(b'"')  # every second piece is inside quotes
    if len(pieces) % 2 == 0 or not block.endswith(b"\n"):
        whole = block[: _whole_bytes(pieces)]
        pieces = whole.split(b'"')
    outside = b'"'.join(pieces[::2])
    if not _is_quoted_well(pieces, delimiter.encode()):
        return None
    table = _csv(whole, delimiter=delimiter, width=width, fields=(text, row_id))
    count = outside.count(b"\n")
    lines = whole.count(b"\n")
    if table is None or table.num_rows != count or (lines > count and len(whole) > max_row_bytes):
        return None
    first_lines = pa.arange(line, line + count)
    if lines > count:
        first_lines = pa.array([line + before for before in _lines_before(pieces)], pa.int64())
    ids = pa.nulls(count, pa.string()) if row_id is None else table[str(row_id)].combine_chunks()
    rows = batch(first_lines, ids, table[str(text)].combine_chunks())
    return None if rows is None else Records(rows, lines, block[len(whole) :])


def _is_quoted_well(pieces: Sequence[bytes], delimiter: bytes) -> bool:
    """Whether quotes open at the beginning of a field, close at its end, and double inside."""
    if len(pieces) == 1:
        return True
    before, after = (delimiter, b"\n"), (delimiter, b"\n", b"\r\n")
    return (
        (not pieces[0] or pieces[0].endswith(before))
        and pieces[-1].startswith(after)
        and all(
            not piece or (piece.startswith(after) and piece.endswith(before))
            for piece in set(pieces[2:-1:2])
        )
    )


def _whole_bytes(pieces: Sequence[bytes]) -> int:
    """Bytes up to the end of the last line that ends outside quotes."""
    beyond = 0
    for index in range(len(pieces) - 1, -1, -1):
        piece = pieces[index]
        end = -1 if index % 2 else piece.rfind(b"\n")
        if end >= 0:
            total = sum(map(len, pieces)) + len(pieces) - 1
            return total - beyond - (len(piece) - end - 1)
        beyond += len(piece) + 1
    return 0


def _csv(
    block: bytes, *, delimiter: str, width: int, fields: tuple[int, int | None]
) -> pa.Table | None:
    names = [str(index) for index in range(width)]
    wanted = [str(index) for index in dict.fromkeys(fields) if index is not None]
    try:
        return pa.csv.read_csv(
            pa.BufferReader(block),
            pa.csv.ReadOptions(use_threads=False, block_size=len(block) + 1, column_names=names),
            pa.csv.ParseOptions(
                delimiter=delimiter, newlines_in_values=True, ignore_empty_lines=False
            ),
            pa.csv.ConvertOptions(
                include_columns=wanted, column_types=dict.fromkeys(wanted, pa.string())
            ),
        )
    except (pa.ArrowInvalid, UnicodeDecodeError):  # the latter: a message that quotes the row
        return None


def _lines_before(pieces: Sequence[bytes]) -> list[int]:
    """The number of lines before each record."""
    lines = 0
    before = [0]
    for piece, is_inside in zip(pieces, itertools.cycle((False, True)), strict=False):
        for _ in range(piece.count(b"\n")):
            lines += 1
            if not is_inside:
                before.append(lines)
    return before[:-1]
