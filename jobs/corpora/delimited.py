"""CSV and TSV: a header, then one row a record, quoted as ``jobs.corpora.records`` says."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from jobs.corpora import columns, fast_path, lines, text_stream
from jobs.corpora.batches import MAX_BYTES, MAX_ROWS
from jobs.corpora.records import Broken, Parser, Record
from jobs.corpora.sources import Source
from jobs.corpora.targets import Target, Targets, no_rows
from jobs.errors import CorpusFailure
from jobs.kinds import Corpus
from jobs.results.schemas import RowCode

_OTHER_DELIMITERS = (";", "\t", "|", ",")


@dataclass(frozen=True)
class _Places:
    """Where in a record the values are that are read; ``width`` is the header's."""

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
    targets: Targets | None = None,
) -> Iterator[pa.RecordBatch]:
    with text_stream.text(source, corpus) as stream:
        parser = Parser(delimiter=delimiter, max_row_bytes=max_row_bytes)
        found = parser.read(lines.blocks(stream, max_row_bytes=max_row_bytes))
        header = _header(next(found, None), source.name)
        chosen = columns.choose(header, corpus, strings=_strings(header), targets=targets)
        places = _places(header, corpus, chosen)
        if targets is None:  # from the second block on: the first is under way
            parser.clean = functools.partial(
                fast_path.records,
                delimiter=delimiter,
                max_row_bytes=max_row_bytes,
                width=places.width,
                text=places.text,
                row_id=places.row_id,
            )
        yield from _batches(found, places, target=chosen.target, targets=targets)


read_csv = functools.partial(_read, delimiter=",")
read_tsv = functools.partial(_read, delimiter="\t")


def _batches(
    found: Iterator[Record | pa.RecordBatch],
    places: _Places,
    *,
    target: Target | None,
    targets: Targets | None,
) -> Iterator[pa.RecordBatch]:
    rows, size = no_rows(targets), 0
    text, row_id, width = places.text, places.row_id, places.width
    for record in found:
        if isinstance(record, pa.RecordBatch):
            if rows:
                yield rows.batch()
                rows, size = no_rows(targets), 0
            yield from fast_path.pages(record)
            continue
        line, fields = record
        if isinstance(fields, Broken):
            rows.fail(line, fields.code, fields.message)
        elif len(fields) != width:
            message = f"{len(fields)} fields where the header has {width}"
            rows.fail(line, RowCode.BAD_CSV, message)
        else:
            value = fields[text]
            answer = "" if places.target is None else fields[places.target]
            length = len(value) + len(answer)
            if size + length > MAX_BYTES and rows:
                yield rows.batch()
                rows, size = no_rows(targets), 0
            name = None if row_id is None else fields[row_id]
            if target is None:
                rows.add(line, value, name)
            else:
                target.add(rows, line, value, answer, name)
            size += length
        if len(rows) == MAX_ROWS:
            yield rows.batch()
            rows, size = no_rows(targets), 0
    if rows:
        yield rows.batch()


def _header(record: Record | pa.RecordBatch | None, name: str) -> list[str]:
    if record is None:
        raise CorpusFailure(f"{name} holds no rows, not even a header", code="corpus_empty")
    assert isinstance(record, tuple)
    _, fields = record
    if isinstance(fields, Broken):
        raise CorpusFailure(f"{name} cannot be read: its header is broken: {fields.message}")
    return [field.strip() for field in fields]


def _strings(header: list[str]) -> list[str]:
    """All columns; but one column named `a;b` says that the file has another delimiter."""
    alone = len(header) == 1 and any(mark in header[0] for mark in _OTHER_DELIMITERS)
    return [] if alone else header


def _places(header: list[str], corpus: Corpus, chosen: columns.Chosen) -> _Places:
    """The places of what is read; the first of several columns of one name."""
    row_id = corpus.id_column
    if row_id is not None:
        columns.require(row_id, header, param="id_column")
    return _Places(
        text=header.index(chosen.text),
        row_id=None if row_id is None else header.index(row_id),
        target=None if chosen.target is None else header.index(chosen.target.column),
        width=len(header),
    )
