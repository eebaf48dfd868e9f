"""Two workers of one thread against one: the same job on each, in turns.

``python -m benchmarks.two_workers [ROWS]``. One installation, whose worker has one thread; in every
round a second such worker joins it and leaves again. Rows are documentation strings of the
installed packages, the model is all-MiniLM-L6-v2 with label texts. Chunks are many and small;
otherwise the ratio would measure how long one worker idles during the last chunk of the other.
Bare matrix products in one process and in two take turns with the jobs: they show what the machine
itself can do. On two cores the rest of the installation has no core of its own beside two workers;
its share of a core is measured too.
"""

from __future__ import annotations

import os
import statistics
import subprocess
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

from api.cli import docstring_corpus
from api.stack.record import StackInfo
from api.stack.services import broker, database, environment
from benchmarks import machine, stack

ROWS = 4_000
WARM_ROWS = 1_000
ROUNDS = 5
CHUNK_ROWS = 50
PRODUCTS_SECONDS = 10.0
WORKER = {"NIGHTSHIFT_WORKER_PROCESSES": "1", "NIGHTSHIFT_WORKER_THREADS": "1"}


def main(rows: int = ROWS) -> None:
    os.environ.update(WORKER)
    with (
        tempfile.TemporaryDirectory(dir="/var/tmp") as folder,
        stack.fresh() as running,
        ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool,
    ):
        few, corpus = Path(folder) / "few.jsonl", Path(folder) / "corpus.jsonl"
        docstring_corpus.write(few, rows=WARM_ROWS)
        rows = docstring_corpus.write(corpus, rows=rows)
        client = stack.client(running)
        warm, file = client.upload(few)["id"], client.upload(corpus)["id"]
        _seconds(running, warm)
        _products(pool, processes=2)
        rounds, products, rest = [], [], []
        for _ in range(ROUNDS):
            alone = _seconds(running, file)
            with _second_worker(running):
                _seconds(running, warm)  # long enough for the second to join and load the model
                began, before = time.monotonic(), stack.cpu_seconds(running, without="pool")
                rounds.append((alone, _seconds(running, file)))
                spent = stack.cpu_seconds(running, without="pool") - before
                rest.append(spent / (time.monotonic() - began))
            products.append([_products(pool, processes=count) for count in (1, 2)])
    alone_each, together_each = zip(*rounds, strict=True)
    ratios = [alone / together for alone, together in rounds]
    machines = [two / one for one, two in products]
    machine.keep(
        "two_workers",
        {
            "rows": rows,
            "chunk_rows": CHUNK_ROWS,
            "rounds": ROUNDS,
            "one_worker_rows_per_second": rows / statistics.median(alone_each),
            "two_workers_rows_per_second": rows / statistics.median(together_each),
            "two_over_one_median": statistics.median(ratios),
            "two_over_one_each": ratios,
            "share_of_a_core_for_the_rest_median": statistics.median(rest),
            "matrix_products_two_over_one_median": statistics.median(machines),
            "matrix_products_two_over_one_each": machines,
        },
    )


@contextmanager
def _second_worker(running: StackInfo) -> Iterator[None]:
    """A second worker beside the installation's own, for the block."""
    worker = subprocess.Popen(
        [sys.executable, "-m", "workers.processes", "pool"],
        env=os.environ | environment(running) | database(running) | broker(running),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with psycopg.connect(running.database_url, autocommit=True) as ledger:
            while _workers(ledger) < 2:
                time.sleep(1)
        yield
    finally:
        worker.terminate()
        worker.wait()


def _workers(ledger: psycopg.Connection) -> int:
    """The number of workers that are alive in the pool."""
    row = ledger.execute("SELECT count(*) FROM workers WHERE pool = 'cpu'").fetchone()
    assert row is not None
    return int(row[0])


def _products(pool: ProcessPoolExecutor, *, processes: int) -> float:
    """Matrix products a second of ``count`` processes of one thread each, together."""
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
    """Seconds from the start of a job's first chunk to the commit of its last row."""
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
