"""Parquet: a row is a row, its ``line`` its 1-based number. Only the needed columns are read.

Rows are decoded in steps of at most ``DECODE_ROWS`` rows and, by the footer, ``DECODE_BYTES``
bytes; values over the limit are dropped at once. The footer may lie, and neither it nor a page
states how long its values are once decoded: ``jobs.corpora.decoder`` limits the memory of the
process that decodes (promise P5). When that is not enough, the same rows are tried again in smaller
steps.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.corpora import arrow_values, columns, fast_path, int96, text_stream
from jobs.corpora.arrow_values import is_text
from jobs.corpora.batches import MAX_BYTES, MAX_ROWS, BatchBuilder
from jobs.corpora.sources import Source
from jobs.corpora.targets import Target, TargetKind, batch_builder
from jobs.errors import CorpusFailure
from jobs.kinds import Corpus
from jobs.row_codes import RowCode

DECODE_ROWS = 128
DECODE_BYTES = 32 * 2**20
_SMALLER = 16
"""By what a step is divided when its rows do not fit into memory."""
_BUFFER = 2**20
_FILE = "Parquet file"


def read(
    source: Source, corpus: Corpus, *, max_row_bytes: int, targets: TargetKind | None = None
) -> Iterator[pa.RecordBatch]:
    """Every row, row group by row group."""
    with source.open() as raw:
        watched = text_stream.WatchedFile(raw, source.name)
        file = _opened(watched)
        chosen = _choose(file.schema_arrow, corpus, targets)
        if corpus.id_column is not None and int96.has_int96(file.schema, corpus.id_column):
            unit = _int96_unit(watched, corpus.id_column)
            file = _opened(watched, unit=unit)
        steps = _steps(file, watched, chosen, corpus.id_column, max_row_bytes=max_row_bytes)
        line = 1
        for piece in _pieces(steps, max_row_bytes):
            if targets is None:
                yield _batch(piece, line, max_row_bytes)
            else:
                rows = batch_builder(targets)
                yield _row_by_row(piece, line, max_row_bytes, rows=rows, target=chosen.target)
            line += piece.num_rows


def _opened(watched: text_stream.WatchedFile, *, unit: str = "ns") -> pq.ParquetFile:
    with watched.content_errors_as_failures(_FILE):
        return pq.ParquetFile(
            watched,
            pre_buffer=False,
            buffer_size=_BUFFER,
            coerce_int96_timestamp_unit=unit,
            arrow_extensions_enabled=True,
        )


def _int96_unit(watched: text_stream.WatchedFile, name: str) -> str:
    """The finest unit for every time of the column; reads the whole column to find it."""
    batches = _opened(watched, unit="s").iter_batches(
        DECODE_ROWS * 32, columns=[name], use_threads=False
    )
    with watched.content_errors_as_failures(_FILE):
        unit = int96.finest_unit(_first_column(batch, name) for batch in batches)
    if unit is None:
        raise CorpusFailure(
            f"column {name!r} has times (INT96) beyond the range of microseconds since 1970; "
            "write it as strings, or pass another id_column"
        )
    return unit


def _choose(schema: pa.Schema, corpus: Corpus, targets: TargetKind | None) -> columns.ChosenColumns:
    strings = [field.name for field in schema if is_text(field.type)]
    chosen = columns.choose(schema.names, corpus, strings=strings, targets=targets)
    if corpus.id_column is not None:
        columns.require(corpus.id_column, schema.names, param="id_column")
        _check_has_text(corpus.id_column, schema, what="ids", param="id_column")
    if _has_messages(chosen):
        _check_has_text(chosen.text, schema, what="messages", param="messages_column")
        return chosen
    text_type = _first_field(schema, chosen.text).type
    if not is_text(text_type):
        raise CorpusFailure(
            f"column {chosen.text!r} must hold strings, not {text_type}; pass text_column; "
            f"columns of strings: {', '.join(map(repr, strings)) or 'none'}",
            code="column_wrong_type",
        )
    if chosen.target is not None:
        _check_target(chosen.target, _first_field(schema, chosen.target.column).type)
    return chosen


def _check_has_text(name: str, schema: pa.Schema, *, what: str, param: str) -> None:
    without_text = arrow_values.type_without_text(_first_field(schema, name).type)
    if without_text is not None:
        raise CorpusFailure(
            f"column {name!r} must hold {what} that can be written as text, and there is no text "
            f"for {without_text}; pass {param}",
            code="column_wrong_type",
        )


def _has_messages(chosen: columns.ChosenColumns) -> bool:
    return chosen.target is not None and chosen.target.kind is TargetKind.MESSAGES


def _check_target(target: Target, arrow_type: pa.DataType) -> None:
    is_settings = target.kind is TargetKind.SETTINGS
    if is_settings and not is_text(arrow_type) and not pa.types.is_null(arrow_type):
        raise CorpusFailure(
            f"column {target.column!r} must hold JSON objects as strings, not {arrow_type}; "
            "pass settings_column",
            code="column_wrong_type",
        )
    several = target.kind is TargetKind.LABELS
    if arrow_values.is_labels(arrow_type) if several else arrow_values.is_label(arrow_type):
        return
    param = columns.PARAMS.get(target.kind, "target_column")
    must = "strings or numbers" + (", or lists of them" if several else "")
    needs_multi_label = arrow_values.is_list(arrow_type) and target.kind is TargetKind.LABEL
    hint = "; several labels need multi_label" if needs_multi_label else ""
    raise CorpusFailure(
        f"column {target.column!r} must hold {must}, not {arrow_type}; pass {param}{hint}",
        code="column_wrong_type",
    )


def _first_field(schema: pa.Schema, name: str) -> pa.Field:
    return schema.field(schema.get_all_field_indices(name)[0])


def _steps(
    file: pq.ParquetFile,
    watched: text_stream.WatchedFile,
    chosen: columns.ChosenColumns,
    row_id: str | None,
    *,
    max_row_bytes: int,
) -> Iterator[pa.RecordBatch]:
    """At most ``DECODE_ROWS`` rows each: ``text``, ``id`` and, of a labelled corpus, ``target``.

    A large step is without its long values already, as ``_without_long_values`` returns it.
    """
    names = {"text": chosen.text}
    if row_id is not None:
        names["id"] = row_id
    if chosen.target is not None:
        names["target"] = chosen.target.column

    def convert(batch: pa.RecordBatch) -> pa.RecordBatch:
        step = _step(batch, names, has_messages=_has_messages(chosen))
        return _without_long_values(step, max_row_bytes) if _is_large(step) else step

    for rows, groups in _runs(file, set(names.values())):
        yield from _decoded(file, watched, groups, list(names.values()), rows=rows, convert=convert)


def _runs(file: pq.ParquetFile, names: set[str]) -> Iterator[tuple[int, list[int]]]:
    """Row groups in order, with the rows that a step of them may have."""
    leaves = [
        index
        for index in range(len(file.schema))
        if any(int96.is_within(file.schema.column(index).path, name) for name in names)
    ]
    groups = range(file.num_row_groups)
    for rows, run in itertools.groupby(groups, lambda group: _step_rows(file, group, leaves)):
        yield rows, list(run)


def _step_rows(file: pq.ParquetFile, index: int, leaves: list[int]) -> int:
    group = file.metadata.row_group(index)
    rows: int = group.num_rows
    size: int = sum(group.column(leaf).total_uncompressed_size for leaf in leaves)
    return min(DECODE_ROWS, max(1, DECODE_BYTES * rows // max(size, 1)))


def _decoded(
    file: pq.ParquetFile,
    watched: text_stream.WatchedFile,
    groups: list[int],
    names: list[str],
    *,
    rows: int,
    convert: Callable[[pa.RecordBatch], pa.RecordBatch],
) -> Iterator[pa.RecordBatch]:
    """The rows of these groups, in smaller steps where memory ends. Raises ``MemoryError``."""
    done = 0
    while True:
        skip = done
        batches = file.iter_batches(
            batch_size=rows, row_groups=groups, columns=names, use_threads=False
        )
        try:
            while True:
                with watched.content_errors_as_failures(_FILE):
                    batch = next(batches, None)
                if batch is None:
                    return
                if skip < batch.num_rows:
                    step = convert(batch.slice(skip))
                    done += step.num_rows
                    yield step
                skip = max(0, skip - batch.num_rows)
        except MemoryError:
            if rows == 1:
                raise
            rows = max(1, rows // _SMALLER)


def _step(batch: pa.RecordBatch, names: dict[str, str], *, has_messages: bool) -> pa.RecordBatch:
    step = {key: _flat(_first_column(batch, name)) for key, name in names.items()}
    step.setdefault("id", pa.nulls(batch.num_rows))
    if has_messages:
        step["text"] = step["target"] = _as_json(step["text"])
    return pa.RecordBatch.from_arrays(list(step.values()), names=list(step))


def _flat(values: pa.Array) -> pa.Array:
    """The values as they are stored; a dictionary that would take much memory stays one."""
    is_dictionary = pa.types.is_dictionary(values.type)
    if is_dictionary and values.dictionary.nbytes * len(values) > DECODE_BYTES:
        return values
    return arrow_values.stored(values)


def _as_json(messages: pa.Array) -> pa.Array:
    """Conversations as JSON, whatever the types of their fields; texts as they are."""
    return messages if is_text(messages.type) else arrow_values.texts(messages)


def _first_column(batch: pa.RecordBatch, name: str) -> pa.Array:
    return batch.column(batch.schema.get_all_field_indices(name)[0])


def _is_large(step: pa.RecordBatch) -> bool:
    return step.nbytes > MAX_BYTES or any(map(pa.types.is_dictionary, step.schema.types))


def _pieces(steps: Iterator[pa.RecordBatch], max_row_bytes: int) -> Iterator[pa.RecordBatch]:
    """Up to about 1 MiB each; columns ``text``, ``id`` and ``long`` (a value was dropped)."""
    buffered: list[pa.RecordBatch] = []
    rows = size = 0
    for step in steps:
        is_cleared = "long" in step.schema.names
        is_full = size + step.nbytes > MAX_BYTES or rows + step.num_rows > MAX_ROWS
        if buffered and (is_cleared or is_full):
            yield from _cut(_without_long_values(pa.concat_batches(buffered), max_row_bytes))
            buffered, rows, size = [], 0, 0
        if is_cleared:
            yield from _cut(step)
            continue
        buffered.append(step)
        rows += step.num_rows
        size += step.nbytes
    if buffered:
        yield from _cut(_without_long_values(pa.concat_batches(buffered), max_row_bytes))


def _without_long_values(step: pa.RecordBatch, max_row_bytes: int) -> pa.RecordBatch:
    """Plain strings, without those over the limit."""
    text, long = _capped(step.column("text"), max_row_bytes)
    ids, long_ids = _ids(step.column("id"), max_row_bytes)
    is_long = pc.or_(long, long_ids)
    targets = {}
    if "target" in step.schema.names:
        targets["target"], long_targets = _capped(step.column("target"), max_row_bytes)
        is_long = pc.or_(is_long, long_targets)
    if is_long.true_count:
        text = pc.if_else(is_long, pa.scalar(None, text.type), text)
    fitting = {"text": text, "id": ids, "long": is_long, **targets}
    return pa.RecordBatch.from_arrays(list(fitting.values()), names=list(fitting))


def _cut(piece: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The piece, or slices of about 1 MiB of text, at least one row each."""
    if piece.nbytes <= MAX_BYTES * 2:
        yield piece
        return
    begin = size = 0
    for index, length in enumerate(_lengths(piece)):
        if index > begin and size + length > MAX_BYTES:
            yield piece.slice(begin, index - begin)
            begin, size = index, 0
        size += length
    yield piece.slice(begin)


def _lengths(piece: pa.RecordBatch) -> list[int]:
    """Bytes of each row's text, and of its target if that is a text."""
    lengths = pc.fill_null(pc.binary_length(piece.column("text")), 0)
    if "target" in piece.schema.names and is_text(piece.schema.field("target").type):
        target_lengths = pc.binary_length(piece.column("target"))
        lengths = pc.add(lengths, pc.fill_null(target_lengths, 0))
    counts: list[int] = lengths.to_pylist()
    return counts


def _ids(values: pa.Array, max_row_bytes: int) -> tuple[pa.Array, pa.Array]:
    """The ids as strings without those over the limit, and which those were."""
    values, long = _capped(values, max_row_bytes)
    texts = arrow_values.texts(values)
    if is_text(values.type):
        return texts, long
    texts, longer = _capped(texts, max_row_bytes)
    return texts, pc.or_(long, longer)


def _capped(values: pa.Array, max_row_bytes: int) -> tuple[pa.Array, pa.Array]:
    """The values without those over the limit, and which those were."""
    if pa.types.is_dictionary(values.type):
        entries, long_entries = _capped(values.dictionary, max_row_bytes)
        long = pc.fill_null(long_entries.take(values.indices), False)  # noqa: FBT003
        return pa.DictionaryArray.from_arrays(values.indices, entries).dictionary_decode(), long
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


def _is_binary(arrow_type: pa.DataType) -> bool:
    return any(check(arrow_type) for check in (pa.types.is_binary, pa.types.is_large_binary))


def _batch(piece: pa.RecordBatch, line: int, max_row_bytes: int) -> pa.RecordBatch:
    """The piece in the corpus's schema; without a bad row nothing passes through Python."""
    lines = pa.arange(line, line + piece.num_rows)
    clean = fast_path.batch(lines, piece.column("id"), piece.column("text"))
    if clean is not None:
        return clean
    return _row_by_row(piece, line, max_row_bytes, rows=batch_builder(None))


def _row_by_row(
    piece: pa.RecordBatch,
    first: int,
    max_row_bytes: int,
    *,
    rows: BatchBuilder,
    target: Target | None = None,
) -> pa.RecordBatch:
    raw = piece.column("text").cast(pa.large_binary()).to_pylist()
    answers = (
        itertools.repeat(None) if target is None else arrow_values.labels(piece.column("target"))
    )
    values = zip(raw, piece.column("id").to_pylist(), piece.column("long").to_pylist(), strict=True)
    numbered = zip(itertools.count(first), values, answers, strict=False)
    for line, (value, row_id, long), answer in numbered:
        if long:
            rows.add_too_long(line, max_row_bytes=max_row_bytes, row_id=row_id)
        elif value is None:
            rows.add_error(line, RowCode.MISSING_TEXT, "the text is null", row_id)
        elif target is None:
            rows.add(line, value.decode("utf-8", "surrogateescape"), row_id)
        else:
            text = value.decode("utf-8", "surrogateescape")
            target.add(rows, line, text, answer, row_id)
    return rows.build()
