"""Two workers of one thread against one: the same job on each, by turns.

``python -m benchmarks.two_workers [ROWS]``. Two installations stand side by side, one with a worker
process of one thread, one with two; only one works at a time. Rows are documentation strings of the
installed packages, the model is all-MiniLM-L6-v2 with label texts.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from api.cli import docstrings
from api.stack.record import StackInfo
from benchmarks import machine, stack

ROWS = 8_000
WARM_ROWS = 2_000
ROUNDS = 3
CHUNK_ROWS = 200


def main(rows: int = ROWS) -> None:
    with (
        tempfile.TemporaryDirectory(dir="/var/tmp") as folder,
        _workers(1) as one,
        _workers(2) as two,
    ):
        few, corpus = Path(folder) / "few.jsonl", Path(folder) / "corpus.jsonl"
        docstrings.write(few, rows=WARM_ROWS)
        rows = docstrings.write(corpus, rows=rows)
        both = (one, two)
        for running in both:  # the workers are warm from here on
            _seconds(running, stack.client(running).upload(few)["id"])
        files = [stack.client(running).upload(corpus)["id"] for running in both]
        rounds = [
            [_seconds(*each) for each in zip(both, files, strict=True)] for _ in range(ROUNDS)
        ]
    alone, together = zip(*rounds, strict=True)
    ratios = [one / two for one, two in rounds]
    machine.keep(
        "two_workers",
        {
            "rows": rows,
            "chunk_rows": CHUNK_ROWS,
            "rounds": ROUNDS,
            "one_worker_rows_per_second": rows / statistics.median(alone),
            "two_workers_rows_per_second": rows / statistics.median(together),
            "two_over_one_median": statistics.median(ratios),
            "two_over_one_each": ratios,
        },
    )


@contextmanager
def _workers(processes: int) -> Iterator[StackInfo]:
    """An installation with so many worker processes of one thread each."""
    settings = {
        "NIGHTSHIFT_WORKER_PROCESSES": str(processes),
        "NIGHTSHIFT_WORKER_THREADS": "1",
    }
    os.environ.update(settings)
    try:
        with stack.fresh() as running:
            yield running
    finally:
        for name in settings:
            os.environ.pop(name, None)


def _seconds(running: StackInfo, file_id: str) -> float:
    """From where a job's first chunk begins to its last row committed."""
    job = stack.classified(stack.client(running), file_id, chunk_rows=CHUNK_ROWS)
    with psycopg.connect(running.database_url) as ledger:
        row = ledger.execute(
            "SELECT extract(epoch FROM max(done_at)"
            " - min(done_at - make_interval(secs => seconds))) FROM chunks"
            " WHERE job_id = %s AND state = 'done'",
            (job["id"],),
        ).fetchone()
    assert row is not None
    return float(row[0])


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
