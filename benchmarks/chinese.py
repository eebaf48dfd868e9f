"""Small models from scratch on Chinese headlines: accuracy, time, size, and rows per second.

``python -m benchmarks.chinese TRAIN TEST [--rows N] [--only NAME]``. Both files are JSONL with the
columns `text` and `label`; a tenth of TRAIN decides which epoch is kept. The recipes below were
chosen from a few on the first 3,000 rows of the set that then became TEST. Each is trained by
the training program as a host would start it, and classifies TEST with the engine of bulk jobs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import machine
from jobs.corpora.schemas import TRAINING_SCHEMA
from jobs.kinds import Architecture, ClassifyOptions
from jobs.settings import Settings

SHARD_ROWS = 10_000
CHUNK_ROWS = 2_000

COMMON = {"batch_rows": 64, "batch_tokens": 4_096, "schedule": "linear", "max_tokens": 64}
RECIPES: dict[Architecture, dict[str, Any]] = {
    Architecture.TRANSFORMER: {"epochs": 3, "learning_rate": 5e-4, "warmup": 0.1},
    Architecture.TEXTCNN: {"epochs": 4, "learning_rate": 3e-3},
    Architecture.LSTM: {"epochs": 4, "learning_rate": 3e-3},
}

Row = tuple[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--rows", type=int, help="of TRAIN, the first")
    parser.add_argument("--only", type=Architecture, choices=list(Architecture))
    given = parser.parse_args()
    train, test = list(_rows(given.train))[: given.rows], list(_rows(given.test))
    chosen = [given.only] if given.only else list(RECIPES)
    figures = {}
    for architecture in chosen:
        with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
            figures[str(architecture)] = _measured(
                architecture, train=train, test=test, work=Path(folder)
            )
        print(_line(str(architecture), figures[str(architecture)]), flush=True)
    if given.only is None and given.rows is None:
        whole = {"rows_train": len(train), "rows_test": len(test), "architectures": figures}
        machine.keep("chinese", whole)


def _measured(
    architecture: Architecture, *, train: Sequence[Row], test: Sequence[Row], work: Path
) -> dict[str, Any]:
    _write(work / "data" / "train", train)
    _write(work / "data" / "test", test)
    (work / "run.json").write_text(json.dumps(_order(architecture, train=train)))
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "workers.training.train", work / "run.json"], check=True)
    seconds = time.perf_counter() - began
    report = json.loads((work / "report.json").read_text())["test"]
    rate, accuracy = _bulk(work / "result", test)
    return {
        "accuracy": report["accuracy"],
        "accuracy_of_bulk": accuracy,
        "macro_f1": report["macro_f1"],
        "train_seconds": round(seconds, 1),
        "mebibytes": round((work / "result" / "model.safetensors").stat().st_size / 2**20, 1),
        "bulk_rows_per_second": round(rate),
        "recipe": {**COMMON, **RECIPES[architecture]},
    }


def _order(architecture: Architecture, *, train: Sequence[Row]) -> dict[str, Any]:
    spec = {
        "kind": "finetune",
        "corpus": {"file": "file-1"},
        "architecture": architecture,
        "model": "headlines",
        "train": {**COMMON, **RECIPES[architecture]},
    }
    return {
        "job_id": "benchmark",
        "run_number": 1,
        "rank": 0,
        "machines": 1,
        "processes": 1,
        "spec": spec,
        "dataset": {"labels": sorted({label for _, label in train}), "splits": {}},
        "code_version": "benchmark",
    }


def _bulk(folder: Path, test: Sequence[Row]) -> tuple[float, float]:
    """Rows per second of the engine, in chunks, and the share of rows it gets right."""
    from workers.inference import engine  # noqa: PLC0415 - not while the training has the memory

    classifier = engine.load(folder, ClassifyOptions(), settings=Settings())
    texts = [text for text, _ in test]
    classifier.classify(texts[:CHUNK_ROWS], beat=_no_beat)
    began = time.perf_counter()
    answers: list[Any] = []
    for start in range(0, len(texts), CHUNK_ROWS):
        answers += classifier.classify(texts[start : start + CHUNK_ROWS], beat=_no_beat)
    seconds = time.perf_counter() - began
    right = sum(each.labels[0] == label for each, (_, label) in zip(answers, test, strict=True))
    return len(texts) / seconds, right / len(texts)


def _no_beat() -> None:
    """A benchmark is never stopped."""


def _rows(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            yield row["text"], row["label"]


def _write(folder: Path, rows: Sequence[Row]) -> None:
    folder.mkdir(parents=True)
    for shard, start in enumerate(range(0, len(rows), SHARD_ROWS)):
        piece = [
            {"row": place, "line": place + 1, "text": text, "target": label}
            for place, (text, label) in enumerate(rows[start : start + SHARD_ROWS], start=start)
        ]
        table = pa.Table.from_pylist(piece, TRAINING_SCHEMA)
        pq.write_table(table, folder / f"{shard:06}.parquet")


def _line(name: str, figures: dict[str, Any]) -> str:
    return (
        f"{name:12} accuracy {figures['accuracy']:.4f}  macro F1 {figures['macro_f1']:.4f}  "
        f"trained in {figures['train_seconds']:.0f} s  {figures['mebibytes']:.1f} MiB  "
        f"{figures['bulk_rows_per_second']} rows/s"
    )


if __name__ == "__main__":
    main()
