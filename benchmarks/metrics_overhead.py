"""What metrics and Flower cost: whole jobs of a stack with them, against one without.

``python -m benchmarks.metrics_overhead [ROWS] [--words N] [--chunk-rows N] [--rounds N]``. Two
stacks run side by side; the same job runs on one and then on the other, in turns, and the one that
is idle meanwhile costs the other what it costs it. Each page of the stack that counts is read every
``SCRAPE_SECONDS``, as Prometheus does; Flower of the other stack is stopped. Control turns often,
since a job ends with a turn and is otherwise rounded up to the next second.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import httpx
import psutil

from api.client import Client
from api.stack.record import StackInfo
from benchmarks import machine, stack
from benchmarks.job_overhead import write_corpus

ROWS = 6_000
WORDS = 16
CHUNK_ROWS = 250
ROUNDS = 11
SCRAPE_SECONDS = 15.0
BATCH_TOKENS = "1024"  # of both, so that neither is still autotuning
TURN_SECONDS = "0.1"  # of both
PORT = "NIGHTSHIFT_METRICS_PORT"


def main() -> None:
    given = _arguments()
    os.environ["NIGHTSHIFT_BATCH_TOKENS"] = BATCH_TOKENS
    os.environ["NIGHTSHIFT_CONTROL_INTERVAL_SECONDS"] = TURN_SECONDS
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder, _both() as (on, off):
        corpus = Path(folder) / "corpus.jsonl"
        write_corpus(corpus, rows=given.rows, words=given.words)
        clients = {"on": stack.client(on), "off": stack.client(off)}
        files = {name: client.upload(corpus)["id"] for name, client in clients.items()}
        took: dict[str, list[float]] = {"on": [], "off": []}
        spent: dict[str, list[float]] = {"on": [], "off": []}
        with _scraped(on):
            for number in range(-1, given.rounds):  # the first one warms both
                for name, running in _in_turns(number, on=on, off=off):
                    before = stack.cpu_seconds(running)
                    seconds = _seconds(clients[name], files[name], chunk_rows=given.chunk_rows)
                    processor = stack.cpu_seconds(running) - before
                    print(f"{number} {name} {seconds:.3f} {processor:.3f}", flush=True)
                    if number >= 0:
                        took[name].append(seconds)
                        spent[name].append(processor)
    machine.keep(
        "metrics_overhead",
        {
            "rows": given.rows,
            "words_each": given.words,
            "chunk_rows": given.chunk_rows,
            "rounds": given.rounds,
            "scrape_seconds": SCRAPE_SECONDS,
            **_compared("seconds", took),
            **_compared("processor_seconds", spent),
        },
    )


def _in_turns(number: int, *, on: StackInfo, off: StackInfo) -> list[tuple[str, StackInfo]]:
    turns = [("on", on), ("off", off)]
    return turns if number % 2 else turns[::-1]


def _compared(unit: str, measured: dict[str, list[float]]) -> dict[str, object]:
    ratios = [one / other for one, other in zip(measured["on"], measured["off"], strict=True)]
    return {
        f"on_median_{unit}": statistics.median(measured["on"]),
        f"off_median_{unit}": statistics.median(measured["off"]),
        f"on_over_off_median_{unit}": statistics.median(ratios),
        f"on_over_off_each_{unit}": ratios,
    }


@contextmanager
def _both() -> Iterator[tuple[StackInfo, StackInfo]]:
    """A stack with metrics and Flower, and one without."""
    os.environ.pop(PORT, None)
    with stack.fresh() as on:
        os.environ[PORT] = "0"
        with stack.fresh() as off:
            assert on.metrics
            assert not off.metrics
            with _suspended(off, "flower"):
                yield on, off


@contextmanager
def _suspended(running: StackInfo, name: str) -> Iterator[None]:
    service = psutil.Process(next(each.pid for each in running.services if each.name == name))
    service.suspend()
    try:
        yield
    finally:
        service.resume()


@contextmanager
def _scraped(running: StackInfo) -> Iterator[None]:
    ended = threading.Event()

    def scrape() -> None:
        pages = [f"http://127.0.0.1:{port}/metrics" for port in running.metrics.values()]
        pages.append(f"http://127.0.0.1:{running.metrics['api']}/metrics/ledger")
        while not ended.wait(SCRAPE_SECONDS):
            for page in pages:
                httpx.get(page, timeout=10, trust_env=False).raise_for_status()

    thread = threading.Thread(target=scrape, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _seconds(client: Client, file_id: str, *, chunk_rows: int) -> float:
    """Seconds of a whole job, from when it was accepted to when its outputs were written."""
    job = stack.classified(client, file_id, chunk_rows=chunk_rows)
    begun, ended = (datetime.fromisoformat(job[name]) for name in ("created_at", "finished_at"))
    return (ended - begun).total_seconds()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("rows", type=int, nargs="?", default=ROWS)
    parser.add_argument("--words", type=int, default=WORDS, help="of each row")
    parser.add_argument("--chunk-rows", type=int, default=CHUNK_ROWS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
