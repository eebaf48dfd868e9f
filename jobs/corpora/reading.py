"""One entry to every format: a corpus as batches of ``rows.CORPUS_SCHEMA``.

A labelled corpus is read in batches of ``rows.LABELLED_SCHEMA``, when told which targets to expect;
so is one whose spec names a column beside its texts.

Every row of the corpus appears once, in order, the same on every reading, as a text or as an error
with a code. What makes the corpus as a whole useless raises ``CorpusFailure`` instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pyarrow as pa

from jobs.corpora import columns, delimited, jsonl, opening, parquet, text
from jobs.corpora.sources import Source
from jobs.corpora.targets import Targets
from jobs.errors import CorpusFailure
from jobs.specs import Corpus, CorpusFormat

_READERS: dict[CorpusFormat, Callable[..., Iterator[pa.RecordBatch]]] = {
    CorpusFormat.JSONL: jsonl.read,
    CorpusFormat.CSV: delimited.read_csv,
    CorpusFormat.TSV: delimited.read_tsv,
    CorpusFormat.PARQUET: parquet.read,
    CorpusFormat.TEXT: text.read,
}


def read(
    source: Source, corpus: Corpus, *, max_row_bytes: int, targets: Targets | None = None
) -> Iterator[pa.RecordBatch]:
    """Batches of at most 4,096 rows and about 1 MiB of text (or one row), memory bounded.

    Columns are chosen before the first batch. Raises ``CorpusFailure`` with code
    ``format_unknown``, ``column_missing``, ``column_wrong_type``, ``corpus_empty`` or
    ``corpus_unreadable``; the last one possibly after some batches, where a file is cut short.
    """
    reader = _READERS[opening.guess_format(source.name, corpus)]
    targets = targets or columns.beside(corpus)
    empty = True
    try:
        for batch in reader(source, corpus, max_row_bytes=max_row_bytes, targets=targets):
            empty = False
            yield batch
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        reason = error.strerror or error
        raise CorpusFailure(f"{source.name} cannot be read: {reason}") from error
    if empty:
        raise CorpusFailure(f"{source.name} holds no rows", code="corpus_empty")
