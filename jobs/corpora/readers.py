"""One entry to every format: a corpus as batches of ``rows.CORPUS_SCHEMA``.

A labelled corpus is read in batches of ``rows.LABELLED_SCHEMA``, when told which targets to expect;
so is one whose spec names a column beside its texts.

Every row of the corpus appears once, in order, the same on every reading, as a text or as an error
with a code. What makes the corpus as a whole useless raises ``CorpusFailure`` instead.
"""

from __future__ import annotations

import contextlib
import csv
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from jobs.corpora import columns, delimited, jsonl, parquet, text, text_stream
from jobs.corpora.batches import clipped
from jobs.corpora.sources import Source
from jobs.corpora.targets import Targets
from jobs.errors import CorpusFailure, StorageFault
from jobs.kinds import Corpus, CorpusFormat

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
    reader = _READERS[text_stream.guess_format(source.name, corpus)]
    targets = targets or columns.beside(corpus)
    place = _Place(source.name)
    batches = reader(source, corpus, max_row_bytes=max_row_bytes, targets=targets)
    while True:
        with _blamed(place):
            batch = next(batches, None)
        if batch is None:
            break
        place.rows += batch.num_rows
        yield batch
    if not place.rows:
        raise CorpusFailure(f"{source.name} holds no rows", code="corpus_empty")


_FAULTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    RecursionError,
    TypeError,
    ValueError,
    csv.Error,
    pa.ArrowException,
    struct.error,
    zlib.error,
)
"""What a library raises over a corpus that it cannot read, at every try again. Trouble of the
storage is an ``OSError`` or an error of its client, and may pass."""


@dataclass
class _Place:
    name: str
    rows: int = 0  # read before


@contextlib.contextmanager
def _blamed(place: _Place) -> Iterator[None]:
    """What only the corpus can be the reason of becomes ``corpus_unreadable``."""
    try:
        yield
    except StorageFault:  # of what holds the corpus: it may pass
        raise
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        reason = error.strerror or error
        raise CorpusFailure(f"{place.name} cannot be read: {reason}") from error
    except pa.ArrowMemoryError:
        raise
    except _FAULTS as error:
        reason = (str(error) or "no reason given").splitlines()[0]
        raise CorpusFailure(
            f"{place.name} cannot be read after row {place.rows:,}: "
            f"{type(error).__name__}: {clipped(reason)}"
        ) from error
