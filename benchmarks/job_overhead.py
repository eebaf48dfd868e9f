"""What the queue costs: time to the first row, overhead per chunk, a job against the engine alone.

``python -m benchmarks.job_overhead [ROWS]``. A job and a loop that gives the same chunks of rows to
the same engine, with the same model, budget and threads, take turns; both are warm. Rows are
documentation strings of the installed packages, the model is all-MiniLM-L6-v2 with label texts.
"""

from __future__ import annotations

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

from api.cli import docstrings
from api.cli.docstrings import TOPICS
from api.client import Client
from benchmarks import machine, stack

ROWS = 2_000
ROUNDS = 5
CHUNK_ROWS = 250
BATCH_TOKENS = "1024"  # of both, so that none is still trying for the best


def main(rows: int = ROWS) -> None:
    os.environ["NIGHTSHIFT_BATCH_TOKENS"] = BATCH_TOKENS
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder, stack.fresh() as running:
        corpus = Path(folder) / "corpus.jsonl"
        rows = docstrings.write(corpus, rows=rows)
        client = stack.client(running)
        file_id = client.upload(corpus)["id"]
        one = Path(folder) / "one.jsonl"
        one.write_text(json.dumps({"text": "one row"}) + "\n")
        one_id = client.upload(one)["id"]
        stack.classified(client, one_id, chunk_rows=CHUNK_ROWS)  # the worker is warm from here on
        with psycopg.connect(running.database_url, autocommit=True) as ledger:
            first = [_first_row(client, ledger, one_id) for _ in range(ROUNDS * 2)]
            rounds = [_round(client, ledger, file_id, corpus) for _ in range(ROUNDS)]
    jobs, loops, overheads, shares = zip(*rounds, strict=True)
    ratios = [job / loop for job, loop in zip(jobs, loops, strict=True)]
    machine.keep(
        "job_overhead",
        {
            "rows": rows,
            "chunk_rows": CHUNK_ROWS,
            "rounds": ROUNDS,
            "submit_to_first_row_median_seconds": statistics.median(first),
            "job_median_seconds": statistics.median(jobs),
            "engine_alone_median_seconds": statistics.median(loops),
            "job_over_engine_alone_median": statistics.median(ratios),
            "job_over_engine_alone_each": ratios,
            "share_of_job_outside_the_engine_median": statistics.median(shares),
            "overhead_per_chunk_median_seconds": statistics.median(overheads),
        },
    )


def _round(
    client: Client, ledger: psycopg.Connection[Any], file_id: str, corpus: Path
) -> tuple[float, float, float, float]:
    """Seconds of one job (submit to last row committed) and of one loop, overhead per chunk.

    Last the share of the job's time that was spent outside the engine.
    """
    begun = time.time()
    job = stack.classified(client, file_id, chunk_rows=CHUNK_ROWS)
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
    return took, _loop(corpus), overhead / (len(chunks) - 1), share


def _first_row(client: Client, ledger: psycopg.Connection[Any], file_id: str) -> float:
    begun = time.time()
    job = stack.classified(client, file_id, chunk_rows=CHUNK_ROWS)
    row = ledger.execute(
        "SELECT extract(epoch FROM min(done_at)) FROM chunks WHERE job_id = %s", (job["id"],)
    ).fetchone()
    assert row is not None
    return float(row[0]) - begun


def _loop(corpus: Path) -> float:
    """Seconds of the engine alone, in a process of its own like the worker's."""
    command = [sys.executable, "-m", "benchmarks.job_overhead", "loop", str(corpus)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return float(done.stdout)


def _engine_alone(corpus: str) -> None:
    from jobs.settings import Settings  # noqa: PLC0415
    from jobs.specs import ClassifyOptions  # noqa: PLC0415
    from workers.inference import engine  # noqa: PLC0415 - brings torch

    texts = [json.loads(line)["text"] for line in Path(corpus).read_text().splitlines()]
    model = engine.load(stack.minilm(), ClassifyOptions(labels=tuple(TOPICS)), settings=Settings())
    model.classify(texts[:64], beat=lambda: None)
    begun = time.perf_counter()
    for start in range(0, len(texts), CHUNK_ROWS):
        model.classify(texts[start : start + CHUNK_ROWS], beat=lambda: None)
    print(time.perf_counter() - begun)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["loop", corpus]:
            _engine_alone(corpus)
        case [rows]:
            main(int(rows))
        case _:
            main()
