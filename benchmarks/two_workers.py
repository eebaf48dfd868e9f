"""Two workers of one thread against one: the same job on each, by turns.

``python -m benchmarks.two_workers [ROWS]``. Two installations stand side by side, one with a worker
process of one thread, one with two; only one works at a time. Rows are documentation strings of the
installed packages, the model is all-MiniLM-L6-v2 with label texts. Bare matrix products in one
process and in two take turns with the jobs: they are what the machine itself has to give.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import psycopg
import torch

from api.cli import docstrings
from api.stack.record import StackInfo
from benchmarks import machine, stack

ROWS = 8_000
WARM_ROWS = 2_000
ROUNDS = 3
CHUNK_ROWS = 200
PRODUCTS_SECONDS = 5.0


def main(rows: int = ROWS) -> None:
    with (
        tempfile.TemporaryDirectory(dir="/var/tmp") as folder,
        _workers(1) as one,
        _workers(2) as two,
        ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool,
    ):
        few, corpus = Path(folder) / "few.jsonl", Path(folder) / "corpus.jsonl"
        docstrings.write(few, rows=WARM_ROWS)
        rows = docstrings.write(corpus, rows=rows)
        both = (one, two)
        for running in both:  # the workers are warm from here on
            _seconds(running, stack.client(running).upload(few)["id"])
        files = [stack.client(running).upload(corpus)["id"] for running in both]
        _products(pool, processes=2)
        rounds, products = [], []
        for _ in range(ROUNDS):
            rounds.append([_seconds(*each) for each in zip(both, files, strict=True)])
            products.append([_products(pool, processes=count) for count in (1, 2)])
    alone, together = zip(*rounds, strict=True)
    ratios = [one / two for one, two in rounds]
    machines = [two / one for one, two in products]
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
            "matrix_products_two_over_one_median": statistics.median(machines),
            "matrix_products_two_over_one_each": machines,
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


def _products(pool: ProcessPoolExecutor, *, processes: int) -> float:
    """Matrix products a second of so many processes of one thread each, together."""
    return sum(each.result() for each in [pool.submit(_multiply) for _ in range(processes)])


def _multiply() -> float:
    torch.set_num_threads(1)
    matrix = torch.randn(1024, 1024)
    done, began = 0, time.perf_counter()
    while time.perf_counter() < began + PRODUCTS_SECONDS:
        matrix @ matrix
        done += 1
    return done / (time.perf_counter() - began)


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
