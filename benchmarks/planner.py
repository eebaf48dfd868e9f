"""The planner against a bare pyarrow stream: rows of a corpus into shards.

``python -m benchmarks.planner CORPUS [--rows N]``. CORPUS is a CSV file with columns ``text`` and
``label``. Its texts, each with a number before it, are repeated until there are N rows, and written
as JSONL, CSV and Parquet. The planner checks every row, numbers it, cuts chunks and writes shards
into a store. The bare stream reads the same file with pyarrow and writes the texts as Parquet files
with as many rows and the same compression. Both read in one thread, and take turns; the planner
writes in another. A second ratio compares the CPU time of all threads.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.json as pa_json
import pyarrow.parquet as pq

from benchmarks import corpora, machine
from jobs import objects
from jobs.corpora import readers, sources
from jobs.decisions.chunking import ChunkLimits
from jobs.kinds import Corpus
from jobs.ledger.plans import PlanProgress
from jobs.results import parts
from jobs.settings import Settings
from workers.bulk import planner
from workers.prefetch import prefetch

ROUNDS = 3
BATCH_ROWS = 10_000
BLOCK_BYTES = 2**20


def main() -> None:
    given = _arguments()
    pa.set_cpu_count(1)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as temporary:
        folder = Path(temporary)
        texts, _ = corpora.news(given.corpus, rows=given.rows)
        figures = {
            kind: _compare(write(folder / f"corpus.{kind}", texts, rows=given.rows), folder)
            for kind, write in WRITERS.items()
        }
    machine.keep("planner", {"rounds": ROUNDS, "rows": given.rows, **figures})


def _compare(corpus: Path, folder: Path) -> dict[str, Any]:
    seconds: dict[str, list[float]] = {"planner": [], "bare": []}
    busy: dict[str, list[float]] = {"planner": [], "bare": []}
    rows = set()
    for _ in range(ROUNDS):
        for name, run in (("planner", _plan), ("bare", _bare)):
            with tempfile.TemporaryDirectory(dir=folder) as out:
                began, began_busy = time.perf_counter(), time.process_time()
                rows.add(run(corpus, Path(out)))
                seconds[name].append(time.perf_counter() - began)
                busy[name].append(time.process_time() - began_busy)
    (count,) = rows  # both have seen every row, every time
    figures = {
        "megabytes": corpus.stat().st_size / 1e6,
        "planner_rows_per_second": count / statistics.median(seconds["planner"]),
        "bare_rows_per_second": count / statistics.median(seconds["bare"]),
        "planner_over_bare": _ratio(seconds),
        "planner_over_bare_by_processor_time": _ratio(busy),
    }
    print(
        f"{corpus.suffix[1:]:8} {figures['planner_rows_per_second']:>10,.0f} rows/s planned, "
        f"{figures['bare_rows_per_second']:>10,.0f} bare: {figures['planner_over_bare']:.2f}, "
        f"{figures['planner_over_bare_by_processor_time']:.2f} by processor time",
        flush=True,
    )
    return figures


def _ratio(seconds: dict[str, list[float]]) -> float:
    pairs = zip(seconds["bare"], seconds["planner"], strict=True)
    return statistics.median(bare / planned for bare, planned in pairs)


def _plan(corpus: Path, out: Path) -> int:
    """Do what the planner does with a corpus, without the ledger; the rows that it wrote."""
    settings = Settings()
    limits = ChunkLimits(
        chunk_rows=settings.chunk_rows,
        chunk_bytes=settings.chunk_bytes,
        shard_rows=settings.shard_rows,
        shard_bytes=settings.shard_bytes,
    )
    store = objects.connect(out.as_uri())
    source = sources.from_uri(corpus.as_uri(), allowed=[corpus.parent.as_uri()])
    asked = Corpus(uri=corpus.as_uri(), text_column="text")
    batches = readers.read(source, asked, max_row_bytes=settings.max_row_bytes)
    rows = 0
    with prefetch(batches, depth=planner.AHEAD) as coming:
        start = PlanProgress(shards=0, rows=0)
        for draft in planner.shard_drafts(coming, limits=limits, progress=start):
            key = parts.shard_key("job", index=draft.index, fence=1)
            parts.write(store, key, draft.table)
            rows += sum(draft.chunk_rows)
    return rows


def _bare(corpus: Path, out: Path) -> int:
    """Stream the texts with pyarrow, and write them in files of a shard's rows."""
    waiting: list[pa.Table] = []
    rows = written = 0
    shard = Settings().shard_rows
    for batch in READERS[corpus.suffix[1:]](corpus):
        waiting.append(pa.Table.from_batches([batch]).select(["text"]))
        rows += batch.num_rows
        if rows - written >= shard:
            _write(pa.concat_tables(waiting), out / f"{written}.parquet")
            waiting, written = [], rows
    if waiting:
        _write(pa.concat_tables(waiting), out / f"{written}.parquet")
    return rows


def _write(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, row_group_size=parts.ROW_GROUP, compression="zstd")


def _csv(corpus: Path) -> Iterator[pa.RecordBatch]:
    reading = pa_csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES)
    parsing = pa_csv.ParseOptions(newlines_in_values=True)
    yield from pa_csv.open_csv(corpus, read_options=reading, parse_options=parsing)


def _jsonl(corpus: Path) -> Iterator[pa.RecordBatch]:
    options = pa_json.ReadOptions(use_threads=False, block_size=BLOCK_BYTES)
    yield from pa_json.open_json(corpus, read_options=options)


def _parquet(corpus: Path) -> Iterator[pa.RecordBatch]:
    yield from pq.ParquetFile(corpus).iter_batches(columns=["text"], use_threads=False)


READERS: dict[str, Callable[[Path], Iterator[pa.RecordBatch]]] = {
    "jsonl": _jsonl,
    "csv": _csv,
    "parquet": _parquet,
}


def _tables(texts: list[str], *, rows: int) -> Iterator[pa.Table]:
    numbered = enumerate(itertools.islice(itertools.cycle(texts), rows))
    while texts := [f"{number} {text}" for number, text in itertools.islice(numbered, BATCH_ROWS)]:
        yield pa.table({"text": texts})


def _write_jsonl(path: Path, texts: list[str], *, rows: int) -> Path:
    with path.open("w") as file:
        for table in _tables(texts, rows=rows):
            file.writelines(json.dumps(row) + "\n" for row in table.to_pylist())
    return path


def _write_csv(path: Path, texts: list[str], *, rows: int) -> Path:
    with pa_csv.CSVWriter(path, pa.schema([("text", pa.string())])) as writer:
        for table in _tables(texts, rows=rows):
            writer.write_table(table)
    return path


def _write_parquet(path: Path, texts: list[str], *, rows: int) -> Path:
    with pq.ParquetWriter(path, pa.schema([("text", pa.string())])) as writer:
        for table in _tables(texts, rows=rows):
            writer.write_table(table)
    return path


WRITERS: dict[str, Callable[..., Path]] = {
    "jsonl": _write_jsonl,
    "csv": _write_csv,
    "parquet": _write_parquet,
}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("corpus", type=Path, help="a CSV file with columns text and label")
    parser.add_argument("--rows", type=int, default=1_000_000)
    return parser.parse_args()


if __name__ == "__main__":
    main()
