"""Plain text: a row is a line. Blank lines are skipped, as in JSONL, but counted in ``line``."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from jobs.corpora import lines, text_stream
from jobs.corpora.batches import BatchBuilder
from jobs.corpora.columns import given_target, missing
from jobs.corpora.sources import Source
from jobs.corpora.targets import TargetKind, batch_builder
from jobs.kinds import Corpus, LabelledCorpus


def read(
    source: Source, corpus: Corpus, *, max_row_bytes: int, targets: TargetKind | None = None
) -> Iterator[pa.RecordBatch]:
    """Every line that is not blank. Targets are refused, except for those that may be missing."""
    messages = corpus.messages_column if isinstance(corpus, LabelledCorpus) else None
    for name in (corpus.text_column, corpus.id_column, given_target(corpus), messages):
        if name is not None:
            raise missing(f"plain text has no columns, so none is named {name!r}")
    if targets not in (None, TargetKind.COMPLETION):
        raise missing(
            f"plain text has no columns, so no line of {source.name} has a {targets}: "
            "use JSONL, CSV, TSV or Parquet"
        )
    with text_stream.open_text(source, corpus) as stream:
        for page in lines.pages(stream, max_row_bytes=max_row_bytes):
            rows = batch_builder(targets)
            _add_lines(rows, page, max_row_bytes)
            if rows:
                yield rows.build()


def _add_lines(rows: BatchBuilder, page: lines.Page, max_row_bytes: int) -> None:
    if page.lines is None:
        rows.add_too_long(page.first_line, max_row_bytes=max_row_bytes)
        return
    for number, raw in enumerate(page.lines, page.first_line):
        text = raw.decode("utf-8", "surrogateescape").removesuffix("\r")
        if text and not text.isspace():
            rows.add(number, text)
