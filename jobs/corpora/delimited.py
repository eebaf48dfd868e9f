"""CSV and TSV: a header, then one record per row, quoted as in ``jobs.corpora.records``."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from jobs.corpora import columns, fast_path, lines, text_stream
from jobs.corpora.batches import MAX_BYTES, MAX_ROWS
from jobs.corpora.records import Broken, Parser, Record
from jobs.corpora.sources import Source
from jobs.corpora.targets import Target, TargetKind, batch_builder
from jobs.errors import CorpusFailure
from jobs.kinds import Corpus
from jobs.row_codes import RowCode

_OTHER_DELIMITERS = (";", "\t", "|", ",")


@dataclass(frozen=True)
class _Fields:
    """Indexes of the fields that are read from a record, and the number of fields."""

    text: int
    row_id: int | None
    target: int | None
    width: int


def _read(
    source: Source,
    corpus: Corpus,
    *,
    max_row_bytes: int,
    delimiter: str,
    targets: TargetKind | None = None,
) -> Iterator[pa.RecordBatch]:
    with text_stream.open_text(source, corpus) as stream:
        parser = Parser(delimiter=delimiter, max_row_bytes=max_row_bytes)
        records = parser.read(lines.blocks(stream, max_row_bytes=max_row_bytes))
        header = _header(next(records, None), source.name)
        chosen = columns.choose(header, corpus, strings=_strings(header), targets=targets)
        fields = _fields(header, corpus, chosen)
        if targets is None:  # from the second block on: the first is already being parsed
            parser.clean = functools.partial(
                fast_path.records,
                delimiter=delimiter,
                max_row_bytes=max_row_bytes,
                width=fields.width,
                text=fields.text,
                row_id=fields.row_id,
            )
        yield from _batches(records, fields, target=chosen.target, targets=targets)


read_csv = functools.partial(_read, delimiter=",")
read_tsv = functools.partial(_read, delimiter="\t")


def _batches(
    records: Iterator[Record | pa.RecordBatch],
    fields: _Fields,
    *,
    target: Target | None,
    targets: TargetKind | None,
) -> Iterator[pa.RecordBatch]:
    rows, size = batch_builder(targets), 0
    text, row_id, width = fields.text, fields.row_id, fields.width
    for record in records:
        if isinstance(record, pa.RecordBatch):
            if rows:
                yield rows.build()
                rows, size = batch_builder(targets), 0
            yield from fast_path.pages(record)
            continue
        line, values = record
        if isinstance(values, Broken):
            rows.add_error(line, values.code, values.message)
        elif len(values) != width:
            message = f"{len(values)} fields where the header has {width}"
            rows.add_error(line, RowCode.BAD_CSV, message)
        else:
            value = values[text]
            answer = "" if fields.target is None else values[fields.target]
            length = len(value) + len(answer)
            if size + length > MAX_BYTES and rows:
                yield rows.build()
                rows, size = batch_builder(targets), 0
            name = None if row_id is None else values[row_id]
            if target is None:
                rows.add(line, value, name)
            else:
                target.add(rows, line, value, answer, name)
            size += length
        if len(rows) == MAX_ROWS:
            yield rows.build()
            rows, size = batch_builder(targets), 0
    if rows:
        yield rows.build()


def _header(record: Record | pa.RecordBatch | None, name: str) -> list[str]:
    if record is None:
        raise CorpusFailure(f"{name} holds no rows, not even a header", code="corpus_empty")
    assert isinstance(record, tuple)
    _, fields = record
    if isinstance(fields, Broken):
        raise CorpusFailure(f"{name} cannot be read: its header is broken: {fields.message}")
    return [field.strip() for field in fields]


def _strings(header: list[str]) -> list[str]:
    """All columns. A single column named like `a;b` means that the file has another delimiter."""
    alone = len(header) == 1 and any(mark in header[0] for mark in _OTHER_DELIMITERS)
    return [] if alone else header


def _fields(header: list[str], corpus: Corpus, chosen: columns.ChosenColumns) -> _Fields:
    """Of several columns with the same name the first is read."""
    row_id = corpus.id_column
    if row_id is not None:
        columns.require(row_id, header, param="id_column")
    return _Fields(
        text=header.index(chosen.text),
        row_id=None if row_id is None else header.index(row_id),
        target=None if chosen.target is None else header.index(chosen.target.column),
        width=len(header),
    )
