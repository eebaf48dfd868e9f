"""Memory of every process while a job of many short rows runs, and the length of the queue.

``python -m benchmarks.short_rows [ROWS ...]``: a job of a million rows, or one of each size given,
on an installation of its own. The model is a random encoder of two layers: what is measured is the
system. The worker is compared with a process that only loads the model and classifies once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import redis

from api.client import Client
from benchmarks import machine, stack

MIB = 2**20
ROWS = 1_000_000


def main(rows: int) -> None:
    from tests.support.tiny_models import tiny_classifier  # noqa: PLC0415 - the client has no torch

    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder, stack.fresh() as running:
        model = tiny_classifier(Path(folder) / "model")
        corpus = _corpus(Path(folder) / "corpus.jsonl", rows=rows)
        alone = _measured_child("alone", str(model))
        client = _started_child("client", running.api_url, running.key, str(corpus), str(model))
        longest = _longest_queue(running.redis_url, until=client)
        timed = json.loads(client.communicate()[0])
        report = stack.client(running).verification(timed["job"])
        peaks = {
            name: stack.peak_bytes(running, name) / MIB
            for name in ("api", "planner", "control", "pool")
        }
    machine.keep(
        f"short_rows_{rows}",
        {
            "rows": rows,
            "verified": report["ok"] and report["rows_output"] == rows,
            "upload_seconds": timed["upload_seconds"],
            "submit_seconds": timed["submit_seconds"],
            "job_seconds": timed["job_seconds"],
            "rows_per_second": rows / timed["job_seconds"],
            "queue_longest_messages": longest,
            **{f"{name}_peak_mib": peak for name, peak in peaks.items() if name != "pool"},
            "client_peak_mib": timed["peak_mib"],
            "worker_peak_mib": peaks["pool"],
            "model_alone_peak_mib": alone["peak_mib"],
            "worker_above_model_mib": peaks["pool"] - alone["peak_mib"],
        },
    )


def _corpus(path: Path, *, rows: int) -> Path:
    with path.open("w") as file:
        for number in range(rows):
            file.write(f'{{"id": {number}, "text": "short row number {number}"}}\n')
    return path


def _longest_queue(redis_url: str, *, until: subprocess.Popen[str]) -> int:
    longest = 0
    with redis.Redis.from_url(redis_url) as broker:
        while until.poll() is None:
            longest = max(longest, broker.llen("pool.cpu"), broker.llen("plan"))
            time.sleep(0.02)
    return longest


def _started_child(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.short_rows", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _measured_child(*arguments: str) -> dict[str, Any]:
    figures: dict[str, Any] = json.loads(_started_child(*arguments).communicate()[0])
    return figures


def _client(api_url: str, key: str, corpus: str, model: str) -> None:
    """Do what ``nightshift classify --watch`` does, and time it."""
    client, begun = Client(api_url, key), time.perf_counter()
    file_id = client.upload(Path(corpus))["id"]
    uploaded = time.perf_counter()
    job = client.submit(
        {
            "kind": "classify",
            "corpus": {"file": file_id, "format": "jsonl"},
            "model": model,
            "output": {"format": "parquet"},
        }
    )
    submitted = time.perf_counter()
    for _ in client.watch(job["id"]):
        pass
    ended = time.perf_counter()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        client.download(job["id"], Path(folder) / "results.parquet")
    _tell(
        job=job["id"],
        upload_seconds=uploaded - begun,
        submit_seconds=submitted - uploaded,
        job_seconds=ended - submitted,
    )


def _alone(model: str) -> None:
    """Load the model and use it once, and nothing else."""
    from jobs.kinds import ClassifyOptions  # noqa: PLC0415
    from jobs.settings import Settings  # noqa: PLC0415 - the client must not bring torch
    from workers.inference import engine  # noqa: PLC0415

    classifier = engine.load(Path(model), ClassifyOptions(), settings=Settings())
    classifier.classify([f"short row number {n}" for n in range(64)], beat=lambda: None)
    _tell()


def _tell(**figures: object) -> None:
    # Not getrusage: its maximum starts at that of the parent process.
    print(json.dumps({"peak_mib": stack.peak_of(os.getpid()) / MIB, **figures}))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["client", api_url, key, corpus, model]:
            _client(api_url, key, corpus, model)
        case ["alone", model]:
            _alone(model)
        case sizes:
            for size in map(int, sizes or [str(ROWS)]):
                main(size)
