"""Parquet: a row is a row, its ``line`` its 1-based number. Only the needed columns are read.

Values are decoded ``STEP`` rows at a time, and over-long ones dropped at once, because neither the
footer nor a page tells how long its values are once decoded: that is what bounds the memory, beside
the largest page of the file.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.corpora import columns, opening
from jobs.corpora.batches import MAX_BYTES, MAX_ROWS, Rows, rendered
from jobs.corpora.sources import Source
from jobs.errors import CorpusFailure
from jobs.rows import CORPUS_SCHEMA, RowCode
from jobs.specs import Corpus

STEP = 64
_BUFFER = 2**20
_WHAT = "Parquet file"


def read(source: Source, corpus: Corpus, *, max_row_bytes: int) -> Iterator[pa.RecordBatch]:
    """Every row, row group by row group."""
    with source.open() as raw:
        watched = opening.Watched(raw, source.name)
        with watched.blamed(_WHAT):
            file = pq.ParquetFile(watched, pre_buffer=False, buffer_size=_BUFFER)
        text, row_id = _choose(file.schema_arrow, corpus)
        steps = _steps(file, watched, text, row_id)
        line = 1
        for part in _parts(steps, max_row_bytes):
            yield _batch(part, line, max_row_bytes)
            line += part.num_rows


def _choose(schema: pa.Schema, corpus: Corpus) -> tuple[str, str | None]:
    strings = [field.name for field in schema if _is_text(field.type)]
    text = columns.choose_text(schema.names, corpus, strings=strings)
    kind = _first_field(schema, text).type
    if not _is_text(kind):
        raise CorpusFailure(
            f"column {text!r} must hold strings, not {kind}; pass text_column; "
            f"columns of strings: {', '.join(map(repr, strings)) or 'none'}",
            code="column_wrong_type",
        )
    if corpus.id_column is None:
        return text, None
    return text, columns.require(corpus.id_column, schema.names, param="id_column")


def _first_field(schema: pa.Schema, name: str) -> pa.Field:
    return schema.field(schema.get_all_field_indices(name)[0])


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    checks = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(check(kind) for check in checks)


def _steps(
    file: pq.ParquetFile, watched: opening.Watched, text: str, row_id: str | None
) -> Iterator[pa.RecordBatch]:
    """Columns ``text`` and ``id``, a few rows at a time."""
    names = [text] if row_id is None else [text, row_id]
    batches = file.iter_batches(batch_size=STEP, columns=names, use_threads=False)
    while True:
        with watched.blamed(_WHAT):
            batch = next(batches, None)
        if batch is None:
            return
        first = [batch.schema.get_all_field_indices(name)[0] for name in names]
        ids = pa.nulls(batch.num_rows) if row_id is None else batch.column(first[1])
        yield pa.RecordBatch.from_arrays([batch.column(first[0]), ids], names=["text", "id"])


def _parts(steps: Iterator[pa.RecordBatch], max_row_bytes: int) -> Iterator[pa.RecordBatch]:
    """Up to about 1 MiB each; columns ``text``, ``id`` and ``long`` (a value was dropped)."""
    held: list[pa.RecordBatch] = []
    size = 0
    for step in steps:
        if held and (size + step.nbytes > MAX_BYTES or len(held) == MAX_ROWS // STEP):
            yield from _cut(_fitted(pa.concat_batches(held), max_row_bytes))
            held, size = [], 0
        if step.nbytes > MAX_BYTES or pa.types.is_dictionary(step.schema.field("text").type):
            yield from _cut(_fitted(step, max_row_bytes))
            continue
        held.append(step)
        size += step.nbytes
    if held:
        yield from _cut(_fitted(pa.concat_batches(held), max_row_bytes))


def _fitted(step: pa.RecordBatch, max_row_bytes: int) -> pa.RecordBatch:
    """Plain strings, over-long ones dropped."""
    text, long = _capped(step.column("text"), max_row_bytes)
    ids, long_ids = _capped(step.column("id"), max_row_bytes)
    either = pc.or_(long, long_ids)
    if either.true_count:
        text = pc.if_else(either, pa.scalar(None, text.type), text)
    return pa.RecordBatch.from_arrays(
        [text, _id_strings(ids), either], names=["text", "id", "long"]
    )


def _cut(part: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The part, or slices of about 1 MiB of text, at least a row each."""
    if part.nbytes <= MAX_BYTES * 2:
        yield part
        return
    begin = size = 0
    for index, length in enumerate(pc.binary_length(part.column("text")).to_pylist()):
        if index > begin and size + (length or 0) > MAX_BYTES:
            yield part.slice(begin, index - begin)
            begin, size = index, 0
        size += length or 0
    yield part.slice(begin)


def _capped(values: pa.Array, max_row_bytes: int) -> tuple[pa.Array, pa.Array]:
    """The values without those over the limit, and which those were."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_string_view(values.type):
        values = values.cast(pa.large_string())
    if not _is_text(values.type) and not pa.types.is_binary(values.type):
        return values, pa.repeat(pa.scalar(False), len(values))  # noqa: FBT003
    long = pc.fill_null(pc.greater(pc.binary_length(values), max_row_bytes), False)  # noqa: FBT003
    if long.true_count:
        values = pc.if_else(long, pa.scalar(None, values.type), values)
    return values, long


def _id_strings(ids: pa.Array) -> pa.Array:
    """Ids as text: by Arrow where it can, else as Python would write them in JSON."""
    with contextlib.suppress(pa.ArrowInvalid, pa.ArrowNotImplementedError):
        strings = ids.cast(pa.string())
        strings.validate(full=True)
        return strings
    if _is_text(ids.type):
        ids = ids.cast(pa.large_binary(), safe=False)
    return pa.array([_id_string(value) for value in ids.to_pylist()], pa.string())


def _id_string(value: object) -> str | None:
    return value.decode(errors="replace") if isinstance(value, bytes) else rendered(value)


def _batch(part: pa.RecordBatch, line: int, max_row_bytes: int) -> pa.RecordBatch:
    """The part in the corpus's schema; without a bad row nothing passes through Python."""
    text = part.column("text")
    if text.null_count or not _is_valid(text) or _has_blank(text):
        return _row_by_row(part, line, max_row_bytes)
    count = part.num_rows
    lines = pa.arange(line, line + count)
    nothing = pa.nulls(count, pa.string())
    columns_ = [lines, part.column("id"), text.cast(pa.string()), nothing, nothing]
    return pa.RecordBatch.from_arrays(columns_, schema=CORPUS_SCHEMA)


def _has_blank(text: pa.Array) -> bool:
    blank = pc.or_(pc.equal(pc.binary_length(text), 0), pc.utf8_is_space(text))
    return bool(pc.any(blank).as_py())


def _is_valid(text: pa.Array) -> bool:
    try:
        text.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _row_by_row(part: pa.RecordBatch, first: int, max_row_bytes: int) -> pa.RecordBatch:
    rows = Rows()
    raw = part.column("text").cast(pa.large_binary()).to_pylist()
    values = zip(raw, part.column("id").to_pylist(), part.column("long").to_pylist(), strict=True)
    for line, (value, row_id, long) in zip(itertools.count(first), values, strict=False):
        if long:
            rows.too_long(line, max_row_bytes=max_row_bytes, row_id=row_id)
        elif value is None:
            rows.fail(line, RowCode.MISSING_TEXT, "the text is null", row_id)
        else:
            rows.add(line, value.decode("utf-8", "surrogateescape"), row_id)
    return rows.batch()
