"""Parquet: a row is a row, its ``line`` its 1-based number. Only the needed columns are read.

Values are decoded ``STEP`` rows at a time, and over-long ones dropped at once, because neither the
footer nor a page tells how long its values are once decoded: that is what bounds the memory, beside
the largest page of the file.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.corpora import arrow_values, columns, fast_path, int96, text_stream
from jobs.corpora.arrow_values import is_text
from jobs.corpora.batches import MAX_BYTES, MAX_ROWS, Rows
from jobs.corpora.sources import Source
from jobs.corpora.targets import Target, Targets, no_rows
from jobs.errors import CorpusFailure
from jobs.kinds import Corpus
from jobs.results.schemas import RowCode

STEP = 128
_BUFFER = 2**20
_WHAT = "Parquet file"


def read(
    source: Source, corpus: Corpus, *, max_row_bytes: int, targets: Targets | None = None
) -> Iterator[pa.RecordBatch]:
    """Every row, row group by row group."""
    with source.open() as raw:
        watched = text_stream.Watched(raw, source.name)
        file = _opened(watched)
        chosen = _choose(file.schema_arrow, corpus, targets)
        if corpus.id_column is not None and int96.is_in(file.schema, corpus.id_column):
            unit = _int96_unit(watched, corpus.id_column)
            file = _opened(watched, unit=unit)
        steps = _steps(file, watched, chosen, corpus.id_column)
        line = 1
        for part in _parts(steps, max_row_bytes):
            if targets is None:
                yield _batch(part, line, max_row_bytes)
            else:
                rows = no_rows(targets)
                yield _row_by_row(part, line, max_row_bytes, rows=rows, target=chosen.target)
            line += part.num_rows


def _opened(watched: text_stream.Watched, *, unit: str = "ns") -> pq.ParquetFile:
    with watched.blamed(_WHAT):
        return pq.ParquetFile(
            watched,
            pre_buffer=False,
            buffer_size=_BUFFER,
            coerce_int96_timestamp_unit=unit,
            arrow_extensions_enabled=True,
        )


def _int96_unit(watched: text_stream.Watched, name: str) -> str:
    """The finest unit that holds every time of the column, which is read for that once more."""
    batches = _opened(watched, unit="s").iter_batches(STEP * 32, columns=[name], use_threads=False)
    with watched.blamed(_WHAT):
        unit = int96.unit(_first_column(batch, name) for batch in batches)
    if unit is None:
        raise CorpusFailure(
            f"column {name!r} has times (INT96) beyond the years that microseconds since 1970 can "
            "tell; write it as strings, or pass another id_column"
        )
    return unit


def _choose(schema: pa.Schema, corpus: Corpus, targets: Targets | None) -> columns.Chosen:
    strings = [field.name for field in schema if is_text(field.type)]
    chosen = columns.choose(schema.names, corpus, strings=strings, targets=targets)
    if corpus.id_column is not None:
        columns.require(corpus.id_column, schema.names, param="id_column")
        _check_spelled(corpus.id_column, schema, what="ids", param="id_column")
    if _is_of_messages(chosen):
        _check_spelled(chosen.text, schema, what="messages", param="messages_column")
        return chosen
    kind = _first_field(schema, chosen.text).type
    if not is_text(kind):
        raise CorpusFailure(
            f"column {chosen.text!r} must hold strings, not {kind}; pass text_column; "
            f"columns of strings: {', '.join(map(repr, strings)) or 'none'}",
            code="column_wrong_type",
        )
    if chosen.target is not None:
        _check_target(chosen.target, _first_field(schema, chosen.target.column).type)
    return chosen


def _check_spelled(name: str, schema: pa.Schema, *, what: str, param: str) -> None:
    unspelled = arrow_values.unspelled(_first_field(schema, name).type)
    if unspelled is not None:
        raise CorpusFailure(
            f"column {name!r} must hold {what} that can be written as text, and there is no text "
            f"for {unspelled}; pass {param}",
            code="column_wrong_type",
        )


def _is_of_messages(chosen: columns.Chosen) -> bool:
    return chosen.target is not None and chosen.target.kind is Targets.MESSAGES


def _check_target(target: Target, kind: pa.DataType) -> None:
    several = target.kind is Targets.LABELS
    if target.kind is Targets.SETTINGS and not is_text(kind) and not pa.types.is_null(kind):
        raise CorpusFailure(
            f"column {target.column!r} must hold JSON objects as strings, not {kind}; "
            "pass settings_column",
            code="column_wrong_type",
        )
    if arrow_values.is_labels(kind) if several else arrow_values.is_label(kind):
        return
    param = columns.PARAMS.get(target.kind, "target_column")
    wanted = "strings or numbers" + (", or lists of them" if several else "")
    alone = arrow_values.is_list(kind) and target.kind is Targets.LABEL
    hint = "; several labels need multi_label" if alone else ""
    raise CorpusFailure(
        f"column {target.column!r} must hold {wanted}, not {kind}; pass {param}{hint}",
        code="column_wrong_type",
    )


def _first_field(schema: pa.Schema, name: str) -> pa.Field:
    return schema.field(schema.get_all_field_indices(name)[0])


def _steps(
    file: pq.ParquetFile, watched: text_stream.Watched, chosen: columns.Chosen, row_id: str | None
) -> Iterator[pa.RecordBatch]:
    """Columns ``text``, ``id`` and, of a labelled corpus, ``target``, a few rows at a time."""
    wanted = {"text": chosen.text}
    if row_id is not None:
        wanted["id"] = row_id
    if chosen.target is not None:
        wanted["target"] = chosen.target.column
    text_type = _first_field(file.schema_arrow, chosen.text).type
    is_extension = isinstance(text_type, pa.BaseExtensionType)
    batches = file.iter_batches(batch_size=STEP, columns=list(wanted.values()), use_threads=False)
    while True:
        with watched.blamed(_WHAT):
            batch = next(batches, None)
        if batch is None:
            return
        first = {key: _first_column(batch, name) for key, name in wanted.items()}
        first.setdefault("id", pa.nulls(batch.num_rows))
        if _is_of_messages(chosen):
            first["text"] = first["target"] = _as_json(first["text"])
        if is_extension:
            first["text"] = arrow_values.stored(first["text"])
        if "target" in first:
            first["target"] = arrow_values.stored(first["target"])
        yield pa.RecordBatch.from_arrays(list(first.values()), names=list(first))


def _as_json(messages: pa.Array) -> pa.Array:
    """Conversations as JSON texts, whatever the types of their fields; texts as they are."""
    return messages if is_text(messages.type) else arrow_values.texts(messages)


def _first_column(batch: pa.RecordBatch, name: str) -> pa.Array:
    return batch.column(batch.schema.get_all_field_indices(name)[0])


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
    ids, long_ids = _ids(step.column("id"), max_row_bytes)
    either = pc.or_(long, long_ids)
    targets = {}
    if "target" in step.schema.names:
        targets["target"], long_targets = _capped(step.column("target"), max_row_bytes)
        either = pc.or_(either, long_targets)
    if either.true_count:
        text = pc.if_else(either, pa.scalar(None, text.type), text)
    found = {"text": text, "id": ids, "long": either, **targets}
    return pa.RecordBatch.from_arrays(list(found.values()), names=list(found))


def _cut(part: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The part, or slices of about 1 MiB of text, at least a row each."""
    if part.nbytes <= MAX_BYTES * 2:
        yield part
        return
    begin = size = 0
    for index, length in enumerate(_lengths(part)):
        if index > begin and size + length > MAX_BYTES:
            yield part.slice(begin, index - begin)
            begin, size = index, 0
        size += length
    yield part.slice(begin)


def _lengths(part: pa.RecordBatch) -> list[int]:
    """Bytes of each row's text, and of its target where that is a text."""
    lengths = pc.fill_null(pc.binary_length(part.column("text")), 0)
    if "target" in part.schema.names and is_text(part.schema.field("target").type):
        targets = pc.binary_length(part.column("target"))
        lengths = pc.add(lengths, pc.fill_null(targets, 0))
    found: list[int] = lengths.to_pylist()
    return found


def _ids(values: pa.Array, max_row_bytes: int) -> tuple[pa.Array, pa.Array]:
    """The ids as strings, over-long ones dropped, and which those were."""
    values, long = _capped(values, max_row_bytes)
    texts = arrow_values.texts(values)
    if is_text(values.type):
        return texts, long
    texts, longer = _capped(texts, max_row_bytes)
    return texts, pc.or_(long, longer)


def _capped(values: pa.Array, max_row_bytes: int) -> tuple[pa.Array, pa.Array]:
    """The values without those over the limit, and which those were."""
    values = arrow_values.stored(values)
    if pa.types.is_string_view(values.type):
        values = values.cast(pa.large_string())
    if pa.types.is_binary_view(values.type):
        values = values.cast(pa.large_binary())
    if not is_text(values.type) and not _is_binary(values.type):
        return values, pa.repeat(pa.scalar(False), len(values))  # noqa: FBT003
    long = pc.fill_null(pc.greater(pc.binary_length(values), max_row_bytes), False)  # noqa: FBT003
    if long.true_count:
        values = pc.if_else(long, pa.scalar(None, values.type), values)
    return values, long


def _is_binary(kind: pa.DataType) -> bool:
    return any(check(kind) for check in (pa.types.is_binary, pa.types.is_large_binary))


def _batch(part: pa.RecordBatch, line: int, max_row_bytes: int) -> pa.RecordBatch:
    """The part in the corpus's schema; without a bad row nothing passes through Python."""
    lines = pa.arange(line, line + part.num_rows)
    made = fast_path.batch(lines, part.column("id"), part.column("text"))
    if made is not None:
        return made
    return _row_by_row(part, line, max_row_bytes, rows=no_rows(None))


def _row_by_row(
    part: pa.RecordBatch,
    first: int,
    max_row_bytes: int,
    *,
    rows: Rows,
    target: Target | None = None,
) -> pa.RecordBatch:
    raw = part.column("text").cast(pa.large_binary()).to_pylist()
    answers = (
        itertools.repeat(None) if target is None else arrow_values.labels(part.column("target"))
    )
    values = zip(raw, part.column("id").to_pylist(), part.column("long").to_pylist(), strict=True)
    numbered = zip(itertools.count(first), values, answers, strict=False)
    for line, (value, row_id, long), answer in numbered:
        if long:
            rows.too_long(line, max_row_bytes=max_row_bytes, row_id=row_id)
        elif value is None:
            rows.fail(line, RowCode.MISSING_TEXT, "the text is null", row_id)
        elif target is None:
            rows.add(line, value.decode("utf-8", "surrogateescape"), row_id)
        else:
            text = value.decode("utf-8", "surrogateescape")
            target.add(rows, line, text, answer, row_id)
    return rows.batch()
