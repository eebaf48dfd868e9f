"""The columns that readers yield, and those of a shard.

A shard is what the planner wrote down of a corpus, in Parquet. In bulk work every corpus row is one
shard row, a bad one too: it carries its error with it, and becomes an error row of the part. The
shards of a training job hold its good rows alone.
"""

from __future__ import annotations

import pyarrow as pa

CORPUS_SCHEMA = pa.schema(
    [
        ("line", pa.int64()),  # 1-based line (text formats) or row (Parquet) where the row begins
        ("id", pa.string()),  # the id column as text; null: none asked for, or unreadable
        ("text", pa.string()),  # null if and only if error_code is set
        ("error_code", pa.string()),
        ("error_message", pa.string()),
    ]
)
"""What a reader yields, batch by batch."""

LABELLED_SCHEMA = pa.schema(
    [
        *CORPUS_SCHEMA,
        # what stands beside the text: what the model should answer (a label, a JSON array of
        # labels, or a text), or the second text of a pair, or a JSON object of settings; null on an
        # error row, and where a training corpus for `generate` is plain text
        ("target", pa.string()),
    ]
)
"""What a reader yields of a corpus of which two columns are read."""

SOURCE = pa.field("source", pa.string())
"""The name of the object that a row comes from, the last column of a corpus of several objects."""

SHARD_SCHEMA = pa.schema([("row", pa.int64()), *CORPUS_SCHEMA])
"""``row`` is the 0-based place in the whole corpus. Of a corpus of which two columns are read, the
shards have ``target`` too, and of one of several objects ``source``."""

TRAINING_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),  # 0-based place in its corpus
        ("line", pa.int64()),
        ("text", pa.string()),
        ("target", pa.string()),  # as in LABELLED_SCHEMA
    ]
)
"""The columns of a training job's shards; rows with an error are counted instead. The name of the
object that a row comes from is not among them: errors alone show it."""
