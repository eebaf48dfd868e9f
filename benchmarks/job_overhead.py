"""The cost of the queue: time to the first row, overhead per chunk, a job against the bare engine.

``python -m benchmarks.job_overhead [ROWS] [--words N] [--chunk-rows N] [--rounds N]``. A job and a
loop that gives the same chunks of rows to the same engine, with the same model, budget and threads,
take turns; both are warm. Rows are documentation strings of the installed packages, or pieces of
N words of them; the model is all-MiniLM-L6-v2 with label texts.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg

from api.cli import docstring_corpus
from api.cli.docstring_corpus import TOPICS
from api.client import Client
from benchmarks import machine, stack

ROWS = 2_000
ROUNDS = 5
CHUNK_ROWS = 250
BATCH_TOKENS = "1024"  # of both, so that neither is still autotuning


def main() -> None:
    given = _arguments()
    if given.loop is not None:
        _engine_alone(given.loop, chunk_rows=given.chunk_rows)
        return
    os.environ["NIGHTSHIFT_BATCH_TOKENS"] = BATCH_TOKENS
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder, stack.fresh() as running:
        corpus = Path(folder) / "corpus.jsonl"
        rows = write_corpus(corpus, rows=given.rows, words=given.words)
        client = stack.client(running)
        file_id = client.upload(corpus)["id"]
        one = Path(folder) / "one.jsonl"
        one.write_text(json.dumps({"text": "one row"}) + "\n")
        one_id = client.upload(one)["id"]
        # The worker is warm from here on.
        stack.classified(client, one_id, chunk_rows=given.chunk_rows)
        with psycopg.connect(running.database_url, autocommit=True) as ledger:
            first = [_first_row(client, ledger, one_id) for _ in range(ROUNDS * 2)]
            rounds = [
                _round(client, ledger, file_id, corpus, chunk_rows=given.chunk_rows)
                for _ in range(given.rounds)
            ]
    jobs, loops, overheads, shares = zip(*rounds, strict=True)
    ratios = [job / loop for job, loop in zip(jobs, loops, strict=True)]
    machine.keep(
        f"job_overhead_{given.rows}",
        {
            "rows": rows,
            "words_each": given.words,
            "chunk_rows": given.chunk_rows,
            "rounds": given.rounds,
            "submit_to_first_row_median_seconds": statistics.median(first),
            "job_median_seconds": statistics.median(jobs),
            "engine_alone_median_seconds": statistics.median(loops),
            "job_over_engine_alone_median": statistics.median(ratios),
            "job_over_engine_alone_each": ratios,
            "share_of_job_outside_the_engine_median": statistics.median(shares),
            "overhead_per_chunk_median_seconds": statistics.median(overheads),
        },
    )


def write_corpus(corpus: Path, *, rows: int, words: int | None) -> int:
    """Documentation strings, or pieces of ``words`` words of them; the number of rows."""
    if words is None:
        return docstring_corpus.write(corpus, rows=rows)
    docstring_corpus.write(corpus, rows=None)
    texts = [json.loads(line)["text"] for line in corpus.read_text().splitlines()]
    all_words = itertools.chain.from_iterable(map(str.split, texts))
    pieces = (list(itertools.islice(all_words, words)) for _ in range(rows))
    with corpus.open("w") as file:
        file.writelines(json.dumps({"text": " ".join(piece)}) + "\n" for piece in pieces)
    return rows


def _round(
    client: Client,
    ledger: psycopg.Connection[Any],
    file_id: str,
    corpus: Path,
    *,
    chunk_rows: int,
) -> tuple[float, float, float, float]:
    """Seconds of one job (submit to last row committed) and of one loop, overhead per chunk.

    The last value is the share of the job's time that was spent outside the engine.
    """
    begun = time.time()
    job = stack.classified(client, file_id, chunk_rows=chunk_rows)
    chunks = ledger.execute(
        "SELECT extract(epoch FROM done_at)::float8, seconds FROM chunks "
        "WHERE job_id = %s AND state = 'done' ORDER BY done_at",
        (job["id"],),
    ).fetchall()
    (first, _), (last, _) = chunks[0], chunks[-1]
    # Between the first commit and the last: everything that is not the engine's own time.
    overhead = last - first - sum(seconds for _, seconds in chunks[1:])
    took = last - begun
    share = 1 - sum(seconds for _, seconds in chunks) / took
    return took, _loop(corpus, chunk_rows=chunk_rows), overhead / (len(chunks) - 1), share


def _first_row(client: Client, ledger: psycopg.Connection[Any], file_id: str) -> float:
    begun = time.time()
    job = stack.classified(client, file_id, chunk_rows=CHUNK_ROWS)
    row = ledger.execute(
        "SELECT extract(epoch FROM min(done_at)) FROM chunks WHERE job_id = %s", (job["id"],)
    ).fetchone()
    assert row is not None
    return float(row[0]) - begun


def _loop(corpus: Path, *, chunk_rows: int) -> float:
    """Seconds of the engine alone, in a process of its own like the worker's."""
    command = [sys.executable, "-m", "benchmarks.job_overhead", "--loop", str(corpus)]
    command += ["--chunk-rows", str(chunk_rows)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return float(done.stdout.splitlines()[-1])  # the lines before it are the log


def _engine_alone(corpus: Path, *, chunk_rows: int) -> None:
    from jobs.kinds import ClassifyOptions  # noqa: PLC0415
    from jobs.settings import Settings  # noqa: PLC0415
    from workers.inference import engine  # noqa: PLC0415 - brings torch

    texts = [json.loads(line)["text"] for line in corpus.read_text().splitlines()]
    model = engine.load(stack.minilm(), ClassifyOptions(labels=tuple(TOPICS)), settings=Settings())
    model.classify(texts[:64], beat=lambda: None)
    begun = time.perf_counter()
    for start in range(0, len(texts), chunk_rows):
        model.classify(texts[start : start + chunk_rows], beat=lambda: None)
    print(time.perf_counter() - begun)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("rows", type=int, nargs="?", default=ROWS)
    parser.add_argument("--words", type=int, help="of each row; default: whole strings")
    parser.add_argument("--chunk-rows", type=int, default=CHUNK_ROWS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--loop", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
