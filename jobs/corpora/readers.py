"""The one entry for all formats: a corpus as batches of ``schemas.CORPUS_SCHEMA``.

A corpus with targets is read in batches of ``schemas.LABELLED_SCHEMA``: a labelled corpus whose
target kind is passed, and a corpus whose spec names a second column.

Every row of the corpus appears once, in order, the same on every reading, as a text or as an error
with a code. A fault of the whole corpus raises ``CorpusFailure`` instead.
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
from jobs.corpora.targets import TargetKind
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
    source: Source, corpus: Corpus, *, max_row_bytes: int, targets: TargetKind | None = None
) -> Iterator[pa.RecordBatch]:
    """Batches of at most 4,096 rows and about 1 MiB of text (or one row), in bounded memory.

    Columns are chosen before the first batch. Raises ``CorpusFailure`` with code
    ``format_unknown``, ``column_missing``, ``column_wrong_type``, ``corpus_empty`` or
    ``corpus_unreadable``. The last one may come after some batches, if a file is truncated.
    """
    reader = _READERS[text_stream.guess_format(source.name, corpus)]
    targets = targets or columns.named_target_kind(corpus)
    position = Position(source.name)
    batches = reader(source, corpus, max_row_bytes=max_row_bytes, targets=targets)
    while True:
        with library_errors_as_failures(position):
            batch = next(batches, None)
        if batch is None:
            break
        position.rows += batch.num_rows
        yield batch
    if not position.rows:
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
"""Errors that a library raises for a corpus it cannot read, again at every retry. Faults of the
storage are an ``OSError`` or an error of its client, and may pass."""


@dataclass
class Position:
    name: str
    rows: int = 0  # read so far


@contextlib.contextmanager
def library_errors_as_failures(position: Position) -> Iterator[None]:
    """Errors that only the corpus can cause become ``corpus_unreadable``."""
    try:
        yield
    except StorageFault:  # of the store, not of the corpus: it may pass
        raise
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        reason = error.strerror or error
        raise CorpusFailure(f"{position.name} cannot be read: {reason}") from error
    except pa.ArrowMemoryError:
        raise
    except _FAULTS as error:
        reason = (str(error) or "no reason given").splitlines()[0]
        raise CorpusFailure(
            f"{position.name} cannot be read after row {position.rows:,}: "
            f"{type(error).__name__}: {clipped(reason)}"
        ) from error
