"""The formats of corpora and results, by name, file ending and media type."""

from __future__ import annotations

from enum import StrEnum


class CorpusFormat(StrEnum):
    """How rows are written in a corpus."""

    JSONL = "jsonl"
    CSV = "csv"
    TSV = "tsv"
    PARQUET = "parquet"
    TEXT = "text"


class OutputFormat(StrEnum):
    """How results are written to a single file; its name ends in the format's."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


CORPUS_ENDINGS = {
    ".jsonl": CorpusFormat.JSONL,
    ".ndjson": CorpusFormat.JSONL,
    ".json": CorpusFormat.JSONL,
    ".csv": CorpusFormat.CSV,
    ".tsv": CorpusFormat.TSV,
    ".parquet": CorpusFormat.PARQUET,
    ".txt": CorpusFormat.TEXT,
}
COMPRESSED_ENDINGS = (".gz", ".zst")

OUTPUT_ENDINGS = {
    f".{name}": name for name in (OutputFormat.PARQUET, OutputFormat.JSONL, OutputFormat.CSV)
}
MEDIA_TYPES = {
    OutputFormat.CSV: "text/csv; charset=utf-8",
    OutputFormat.JSONL: "application/x-ndjson",
    OutputFormat.PARQUET: "application/vnd.apache.parquet",
}
