"""Parquet: a row is a row, its ``line`` its 1-based number. Only the needed columns are read.

Values are decoded ``STEP`` rows at a time, and over-long ones dropped at once, because neither the
footer nor a page tells how long its values are once decoded: that is what bounds the memory, beside
the largest page of the file.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.corpora import clean, columns, opening
from jobs.corpora.batches import MAX_BYTES, MAX_ROWS, Rows, rendered
from jobs.corpora.sources import Source
from jobs.corpora.targets import Target, Targets, no_rows
from jobs.errors import CorpusFailure
from jobs.rows import RowCode
from jobs.specs import Corpus

STEP = 128
_BUFFER = 2**20
_WHAT = "Parquet file"


def read(
    source: Source, corpus: Corpus, *, max_row_bytes: int, targets: Targets | None = None
) -> Iterator[pa.RecordBatch]:
    """Every row, row group by row group."""
    with source.open() as raw:
        watched = opening.Watched(raw, source.name)
        with watched.blamed(_WHAT):
            file = pq.ParquetFile(watched, pre_buffer=False, buffer_size=_BUFFER)
        chosen = _choose(file.schema_arrow, corpus, targets)
        steps = _steps(file, watched, chosen, corpus.id_column)
        line = 1
        for part in _parts(steps, max_row_bytes):
            if targets is None:
                yield _batch(part, line, max_row_bytes)
            else:
                rows = no_rows(targets)
                yield _row_by_row(part, line, max_row_bytes, rows=rows, target=chosen.target)
            line += part.num_rows


def _choose(schema: pa.Schema, corpus: Corpus, targets: Targets | None) -> columns.Chosen:
    strings = [field.name for field in schema if _is_text(field.type)]
    chosen = columns.choose(schema.names, corpus, strings=strings, targets=targets)
    kind = _first_field(schema, chosen.text).type
    if not _is_text(kind):
        raise CorpusFailure(
            f"column {chosen.text!r} must hold strings, not {kind}; pass text_column; "
            f"columns of strings: {', '.join(map(repr, strings)) or 'none'}",
            code="column_wrong_type",
        )
    if chosen.target is not None:
        _check_target(chosen.target, _first_field(schema, chosen.target.column).type)
    if corpus.id_column is not None:
        columns.require(corpus.id_column, schema.names, param="id_column")
    return chosen


def _check_target(target: Target, kind: pa.DataType) -> None:
    several = target.kind is Targets.LABELS
    if target.kind is Targets.SETTINGS and not _is_text(kind) and not pa.types.is_null(kind):
        raise CorpusFailure(
            f"column {target.column!r} must hold JSON objects as strings, not {kind}; "
            "pass settings_column",
            code="column_wrong_type",
        )
    if _is_scalar(kind) or (several and _is_list(kind) and _is_scalar(kind.value_type)):
        return
    param = columns.PARAMS.get(target.kind, "target_column")
    wanted = "strings or numbers" + (", or lists of them" if several else "")
    alone = _is_list(kind) and target.kind is Targets.LABEL
    hint = "; several labels need multi_label" if alone else ""
    raise CorpusFailure(
        f"column {target.column!r} must hold {wanted}, not {kind}; pass {param}{hint}",
        code="column_wrong_type",
    )


def _is_scalar(kind: pa.DataType) -> bool:
    types = pa.types
    checks = (_is_text, types.is_integer, types.is_floating, types.is_boolean, types.is_decimal)
    return types.is_null(kind) or any(check(kind) for check in checks)


def _is_list(kind: pa.DataType) -> bool:
    checks = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(check(kind) for check in checks)


def _first_field(schema: pa.Schema, name: str) -> pa.Field:
    return schema.field(schema.get_all_field_indices(name)[0])


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    checks = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(check(kind) for check in checks)


def _steps(
    file: pq.ParquetFile, watched: opening.Watched, chosen: columns.Chosen, row_id: str | None
) -> Iterator[pa.RecordBatch]:
    """Columns ``text``, ``id`` and, of a labelled corpus, ``target``, a few rows at a time."""
    wanted = {"text": chosen.text}
    if row_id is not None:
        wanted["id"] = row_id
    if chosen.target is not None:
        wanted["target"] = chosen.target.column
    batches = file.iter_batches(batch_size=STEP, columns=list(wanted.values()), use_threads=False)
    while True:
        with watched.blamed(_WHAT):
            batch = next(batches, None)
        if batch is None:
            return
        first = {key: _first_column(batch, name) for key, name in wanted.items()}
        first.setdefault("id", pa.nulls(batch.num_rows))
        if "target" in first:
            first["target"] = _decoded(first["target"])
        yield pa.RecordBatch.from_arrays(list(first.values()), names=list(first))


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
    ids, long_ids = _capped(step.column("id"), max_row_bytes)
    either = pc.or_(long, long_ids)
    targets = {}
    if "target" in step.schema.names:
        targets["target"], long_targets = _capped(step.column("target"), max_row_bytes)
        either = pc.or_(either, long_targets)
    if either.true_count:
        text = pc.if_else(either, pa.scalar(None, text.type), text)
    found = {"text": text, "id": _id_strings(ids), "long": either, **targets}
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
    if "target" in part.schema.names and _is_text(part.schema.field("target").type):
        targets = pc.binary_length(part.column("target"))
        lengths = pc.add(lengths, pc.fill_null(targets, 0))
    found: list[int] = lengths.to_pylist()
    return found


def _capped(values: pa.Array, max_row_bytes: int) -> tuple[pa.Array, pa.Array]:
    """The values without those over the limit, and which those were."""
    values = _decoded(values)
    if pa.types.is_string_view(values.type):
        values = values.cast(pa.large_string())
    if not _is_text(values.type) and not pa.types.is_binary(values.type):
        return values, pa.repeat(pa.scalar(False), len(values))  # noqa: FBT003
    long = pc.fill_null(pc.greater(pc.binary_length(values), max_row_bytes), False)  # noqa: FBT003
    if long.true_count:
        values = pc.if_else(long, pa.scalar(None, values.type), values)
    return values, long


def _decoded(values: pa.Array) -> pa.Array:
    return values.dictionary_decode() if pa.types.is_dictionary(values.type) else values


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
    lines = pa.arange(line, line + part.num_rows)
    made = clean.batch(lines, part.column("id"), part.column("text"))
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
    answers = itertools.repeat(None) if target is None else _values(part.column("target"))
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


def _values(answers: pa.Array) -> list[Any]:
    """As Python's values; texts that are no UTF-8 with half surrogate pairs, as everywhere here."""
    kind = answers.type
    if _is_text(kind):
        answers = answers.cast(pa.large_binary())
    elif _is_list(kind) and _is_text(kind.value_type):
        answers = answers.cast(pa.large_list(pa.large_binary()))
    return [_text_of(value) for value in answers.to_pylist()]


def _text_of(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return [_text_of(entry) for entry in value] if isinstance(value, list) else value
