"""CSV and TSV: a header, then one row a record, quoted as ``jobs.corpora.records`` says."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pyarrow as pa

from jobs.corpora import columns, lines, opening
from jobs.corpora.batches import MAX_BYTES, MAX_ROWS, Rows
from jobs.corpora.records import Broken, Record, records
from jobs.corpora.sources import Source
from jobs.errors import CorpusFailure
from jobs.rows import RowCode
from jobs.specs import Corpus

_OTHER_DELIMITERS = (";", "\t", "|", ",")


def _read(
    source: Source, corpus: Corpus, *, max_row_bytes: int, delimiter: str
) -> Iterator[pa.RecordBatch]:
    with opening.text(source, corpus) as stream:
        found = records(
            lines.blocks(stream, max_row_bytes=max_row_bytes),
            delimiter=delimiter,
            max_row_bytes=max_row_bytes,
        )
        header = _header(next(found, None), source.name)
        text, row_id = _places(header, corpus)
        yield from _batches(found, text=text, row_id=row_id, width=len(header))


read_csv = functools.partial(_read, delimiter=",")
read_tsv = functools.partial(_read, delimiter="\t")


def _batches(
    found: Iterator[Record], *, text: int, row_id: int | None, width: int
) -> Iterator[pa.RecordBatch]:
    rows, size = Rows(), 0
    for line, fields in found:
        if isinstance(fields, Broken):
            rows.fail(line, fields.code, fields.message)
        elif len(fields) != width:
            message = f"{len(fields)} fields where the header has {width}"
            rows.fail(line, RowCode.BAD_CSV, message)
        else:
            value = fields[text]
            if size + len(value) > MAX_BYTES and rows:
                yield rows.batch()
                rows, size = Rows(), 0
            rows.add(line, value, None if row_id is None else fields[row_id])
            size += len(value)
        if len(rows) == MAX_ROWS:
            yield rows.batch()
            rows, size = Rows(), 0
    if rows:
        yield rows.batch()


def _header(record: Record | None, name: str) -> list[str]:
    if record is None:
        raise CorpusFailure(f"{name} holds no rows, not even a header", code="corpus_empty")
    _, fields = record
    if isinstance(fields, Broken):
        raise CorpusFailure(f"{name} cannot be read: its header is broken: {fields.message}")
    return [field.strip() for field in fields]


def _places(header: list[str], corpus: Corpus) -> tuple[int, int | None]:
    """The places of the text and of the id; the first of several columns of one name."""
    strings = header
    if len(header) == 1 and any(mark in header[0] for mark in _OTHER_DELIMITERS):
        strings = []  # one column named `a;b`: the file has another delimiter
    text = header.index(columns.choose_text(header, corpus, strings=strings))
    if corpus.id_column is None:
        return text, None
    return text, header.index(columns.require(corpus.id_column, header, param="id_column"))
