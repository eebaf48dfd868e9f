"""Blocks without any flaw, read by Arrow at once; every other block is read row by row.

Arrow is more lenient than `jsonl` and `records`, and does not say which row it dislikes. So a block
is taken only where nothing in it could be read differently there: its lines are whole rows, its
quotes stand where RFC 4180 wants them, and every row comes out, each with a text. ``None`` says
that the block is not such a one.
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
from jobs.results.schemas import CORPUS_SCHEMA

_NO_NUMBERS = (re.compile(rb"Inf[\s,}\]]"), re.compile(rb"-NaN[\s,}\]]"))
"""What Arrow takes for numbers, beside those that Python takes too."""

WORTH_IT = 32 * 2**10
"""Bytes of a block; for a smaller one Python is faster."""

_MOST_FIELDS = 1_000
"""Of a record: each costs Arrow something in every block, wanted or not."""

_SOME_DIGITS = re.compile(rb"\d{10}")
_BRACKETS = 400
"""Of one line; so many cannot be within each other as deep as Python refuses them."""
_SHORT = 2 * _BRACKETS
"""Bytes of a line that has no room for more brackets than those, each closed again."""

_ID_KINDS = (pa.string(), pa.int64())


def batch(lines: pa.Array, ids: pa.Array, texts: pa.Array) -> pa.RecordBatch | None:
    """Rows in the corpus's schema; ``None`` where a text is missing, blank or no Unicode."""
    if texts.null_count or not _is_valid(texts) or _has_blank(texts):
        return None
    nothing = pa.nulls(len(texts), pa.string())
    columns = [lines, ids, texts.cast(pa.string()), nothing, nothing]
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
    """Lines of JSON objects, the first of which is ``line``; ids are strings or whole numbers."""
    names = [text] if row_id is None else [text, row_id]
    if len(block) < WORTH_IT or len(set(names)) < len(names) or not all(map(encodable, names)):
        return None
    rows = block.removesuffix(b"\n").split(b"\n")
    if not _are_objects(rows) or not _is_unicode(block):
        return None
    for others in ("error", "ignore"):  # what no other field could hide need not be looked for
        if others == "ignore" and _may_be_refused(block, rows):
            return None
        for kind in (None,) if row_id is None else _ID_KINDS:
            fields = [(text, pa.string())] + ([] if kind is None else [(row_id, kind)])
            table = _json(block, pa.schema(fields), others=others)
            if table is not None and table.num_rows == len(rows):
                ids = pa.nulls(len(rows)) if kind is None else table[row_id].combine_chunks()
                lines = pa.arange(line, line + len(rows))
                return batch(lines, ids.cast(pa.string()), table[text].combine_chunks())
    return None


def _are_objects(lines: Sequence[bytes]) -> bool:
    """Whether each line is one object or broken, in a way that Arrow sees as well.

    A brace that closes before a line's end, and one that opens after it, cannot stand within an
    object or a string: so no row goes over a line's end, and as many rows as lines are one each.
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
    """Whether a line may have what Arrow takes and Python does not.

    That is a number of 4,300 digits, of which every 400th byte shows ten, or 1,000 brackets within
    each other, or another name of infinity.
    """
    return (
        bool(_SOME_DIGITS.search(block[::400]))
        or any(number.search(block) for number in _NO_NUMBERS)
        or any(
            line.count(b"[") + line.count(b"{") > _BRACKETS
            for line in (lines if max(map(len, lines)) > _SHORT else ())
            if len(line) > _SHORT
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
    """What was taken of a block."""

    batch: pa.RecordBatch
    lines: int
    rest: bytes  # from the beginning of the last record, where that is not whole


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

    ``width`` is how many fields each has; the columns wanted are those in places ``text`` and
    ``row_id``. A line is known to be of at most ``max_row_bytes``, a record of several is not.
    """
    if not WORTH_IT <= len(block) <= MAX_BYTES or width > _MOST_FIELDS:
        return None
    if block.startswith(b"\xef\xbb\xbf"):  # which Arrow would pass over
        return None
    whole, pieces = block, block.split(b'"')  # every other one is within quotes
    if len(pieces) % 2 == 0 or not block.endswith(b"\n"):
        whole = block[: _whole_bytes(pieces)]
        pieces = whole.split(b'"')
    outside = b'"'.join(pieces[::2])
    if not _is_quoted_well(pieces, delimiter.encode()):
        return None
    table = _csv(whole, delimiter=delimiter, width=width, places=(text, row_id))
    count = outside.count(b"\n")
    lines = whole.count(b"\n")
    if table is None or table.num_rows != count or (lines > count and len(whole) > max_row_bytes):
        return None
    begins = pa.arange(line, line + count)
    if lines > count:
        begins = pa.array([line + begin for begin in _begins(pieces)], pa.int64())
    ids = pa.nulls(count, pa.string()) if row_id is None else table[str(row_id)].combine_chunks()
    made = batch(begins, ids, table[str(text)].combine_chunks())
    return None if made is None else Records(made, lines, block[len(whole) :])


def _is_quoted_well(pieces: Sequence[bytes], delimiter: bytes) -> bool:
    """Whether quotes open where a field begins, close where it ends, and are doubled within."""
    if len(pieces) == 1:
        return True
    before, after = (delimiter, b"\n"), (delimiter, b"\n", b"\r\n")
    return (
        (not pieces[0] or pieces[0].endswith(before))
        and pieces[-1].startswith(after)
        and all(
            not each or (each.startswith(after) and each.endswith(before))
            for each in set(pieces[2:-1:2])
        )
    )


def _whole_bytes(pieces: Sequence[bytes]) -> int:
    """How many bytes lie before the end of the last line that ends outside quotes."""
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
    block: bytes, *, delimiter: str, width: int, places: tuple[int, int | None]
) -> pa.Table | None:
    names = [str(place) for place in range(width)]
    wanted = [str(place) for place in dict.fromkeys(places) if place is not None]
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


def _begins(pieces: Sequence[bytes]) -> Iterator[int]:
    """Of each record, how many lines lie before it."""
    lines = 0
    begins = [0]
    for piece, inside in zip(pieces, itertools.cycle((False, True)), strict=False):
        for _ in range(piece.count(b"\n")):
            lines += 1
            if not inside:
                begins.append(lines)
    return iter(begins[:-1])
