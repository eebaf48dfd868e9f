"""The cost of models that cannot do their job: ``python -m benchmarks.bad_models``.

Each is submitted to an installation with one worker process, and a good job right after it. The
table has the seconds until the bad job had failed (or ended) with its reason, the crashes of its
chunks, and the seconds to the first row of the good job, beside those of a good job alone.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from api.client import Client
from benchmarks import stack

EVERY = 0.05
MOST = 600.0
FINAL = ("succeeded", "failed", "cancelled", "expired")


def main(names: list[str]) -> None:
    """Run the named models, or all."""
    from tests.support import bad_models  # noqa: PLC0415 - the client has no torch

    faults = bad_models.FAULTS | bad_models.ENDLESS
    rows = bad_models.texts(40)
    ended = list(rows)
    ended[3::10] = ["was <s> w1 </s> now w2"] * len(ended[3::10])
    panics = [*rows[:20], bad_models.PANICS, *rows[20:]]
    with TemporaryDirectory(prefix="nightshift-models-") as home, stack.fresh(Path(home)) as up:
        client = stack.client(up)
        good = str(bad_models.bert(Path(home) / "good"))
        run_to_the_end(client, good, rows)  # warms up: the worker loads torch and the model
        print(f"| model | seconds | state | code | crashes | good job's first row |\n|{'---|' * 6}")
        alone = first_row(client, submitted(client, "classify", good, rows, {}))
        print(f"| the good job alone | | | | | {alone:.1f} s |")
        for number, (name, (build, options, _, _)) in enumerate(faults.items()):
            if names and name not in names:
                continue
            kind = type(options).__name__.removesuffix("Options").lower()
            folder = str(build(Path(home) / str(number)))
            given = json.loads(options.model_dump_json(exclude_unset=True))
            report(client, name, submitted(client, kind, folder, rows, given), good, rows)
        for name, texts, builder in (
            ("39: rows with ends of text", ended, bad_models.bart_classifier),
            ("a row on which the tokenizer panics", panics, bad_models.panicking),
        ):
            if not names or name in names:
                folder = str(builder(Path(home) / name.replace(" ", "-").replace(":", "")))
                report(client, name, submitted(client, "classify", folder, texts, {}), good, rows)


def report(client: Client, name: str, job: str, good: str, rows: list[str]) -> None:
    """Print how the job ended, and how long a good one beside it waited."""
    began = time.monotonic()
    other = submitted(client, "classify", good, rows, {})
    ended = first = None
    while (ended is None or first is None) and time.monotonic() - began < MOST:
        if ended is None and client.get(job)["state"] in FINAL:
            ended = time.monotonic() - began
        if first is None and _begun(client.get(other)):
            first = time.monotonic() - began
        time.sleep(EVERY)
    seen = client.get(job)
    chunks = client.chunks(job)
    crashes = sum(chunk["crashes"] for chunk in chunks)
    error: Any = seen.get("error") or {}
    failed = seen["rows"].get("failed")
    code = error.get("code") or f"{failed} rows failed"
    print(
        f"| {name} | {_seconds(ended)} | {seen['state']} | {code} | {crashes} "
        f"| {_seconds(first)} s |",
        flush=True,
    )
    if error:
        print(f"|   {error.get('message')} | | | | | |", flush=True)


def submitted(
    client: Client, kind: str, model: str, texts: list[str], options: dict[str, Any]
) -> str:
    """The id of a job of this kind."""
    corpus = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "corpus.jsonl"
        path.write_bytes(corpus)
        file_id = client.upload(path)["id"]
    spec = {"kind": kind, "corpus": {"file": file_id, "format": "jsonl"}, "model": model}
    return str(client.submit(spec | {kind: options})["id"])


def run_to_the_end(client: Client, model: str, texts: list[str]) -> None:
    """Run a good job, and wait until it has succeeded."""
    job = client.wait(submitted(client, "classify", model, texts, {}))
    assert job["state"] == "succeeded", job


def first_row(client: Client, job: str) -> float:
    """Seconds until the job had its first result."""
    began = time.monotonic()
    while not _begun(client.get(job)):
        time.sleep(EVERY)
    return time.monotonic() - began


def _begun(job: dict[str, Any]) -> bool:
    return bool(job["rows"].get("done")) or job["state"] in FINAL


def _seconds(duration: float | None) -> str:
    return f"more than {MOST:.0f}" if duration is None else f"{duration:.1f}"


if __name__ == "__main__":
    main(sys.argv[1:])
