"""One short fine-tune on this process's device: undisturbed, and then killed and resumed.

``python -m benchmarks.gpu_training [ROWS]``. It runs the training program as a host starts it, with
a BERT of MiniLM's shape and random weights; on a CPU with a tiny one. The second run is ended with
SIGKILL after it has written a checkpoint and gone on, and resumes from there. On a GPU the bits of
the two may differ (promise P7 is about CPUs), so the resumed run must end at the same step, with
last losses within a hundredth of the other run's. Exits with 1 if not.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer, BertConfig

from tests.support import tiny_models
from tests.workers.training.work_folder import labelled

ROWS = 1_600
TRAIN: dict[str, Any] = {
    "epochs": 2,
    "batch_rows": 32,
    "learning_rate": 1e-4,
    "checkpoint_steps": 10,
    "evaluate_steps": 25,
}
NEAR = 0.01
PATIENCE = 120.0


def main(rows: int = ROWS) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _base(folder / "base")
        alone = _work(folder / "alone", base=folder / "base", rows=rows)
        began = time.perf_counter()
        _end(_start(alone))
        seconds = time.perf_counter() - began
        killed = _work(folder / "killed", base=folder / "base", rows=rows)
        resumed_at = _kill_behind_a_checkpoint(killed)
        last_before = max(_losses(killed))
        _end(_start(killed))
        comparison = _compared(alone, killed) | {
            "seconds_alone": seconds,
            "killed_behind_step": last_before,
            "resumed_at_step": resumed_at,
        }
    print(json.dumps(comparison), flush=True)
    sound = comparison["last_step"] == comparison["last_step_resumed"]
    sys.exit(0 if sound and comparison["largest_difference_of_losses"] <= NEAR else 1)


def _base(folder: Path) -> None:
    tokenizers: Any = AutoTokenizer
    tokenizer = tokenizers.from_pretrained(tiny_models.tiny_encoder(folder))
    if not torch.cuda.is_available():
        return
    config = BertConfig(
        vocab_size=len(tokenizer),
        num_hidden_layers=6,
        hidden_size=384,
        num_attention_heads=12,
        intermediate_size=1536,
    )
    torch.manual_seed(0)
    auto: Any = AutoModel
    auto.from_config(config).save_pretrained(folder)


def _work(folder: Path, *, base: Path, rows: int) -> Path:
    """A work folder as a host makes it."""
    splits = {
        "train": labelled(rows),
        "validation": labelled(64, seed=2),
        "test": labelled(200, seed=1),
    }
    for split, examples in splits.items():
        shard = folder / "data" / split / "000000.parquet"
        shard.parent.mkdir(parents=True)
        texts, labels = zip(*examples, strict=True)
        places = list(range(len(examples)))
        table = pa.table({"row": places, "line": places, "text": texts, "target": labels})
        pq.write_table(table, shard)
    (folder / "base").symlink_to(base)
    spec = {"kind": "finetune", "corpus": {"file": "file-1"}, "base": "base@1", "model": "it"}
    run = {
        "job_id": "job-benchmark",
        "run_number": 1,
        "spec": spec | {"train": TRAIN},
        "dataset": {"labels": list(tiny_models.LABELS)},
    }
    (folder / "run.json").write_text(json.dumps(run))
    return folder


def _start(work: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "workers.training.train", str(work / "run.json")]
    with (work / "log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=os.environ)


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        status = process.wait(timeout=PATIENCE)
    finally:
        process.kill()
    assert status == 0, f"the training program ended with {status}"


def _kill_behind_a_checkpoint(work: Path) -> int:
    """Kill the program after its first checkpoint, from which it resumes; the checkpoint's step."""
    process = _start(work)
    try:
        deadline = time.monotonic() + PATIENCE
        while max(_losses(work), default=0) < TRAIN["checkpoint_steps"] + 2:
            assert process.poll() is None, (work / "log").read_text()
            assert time.monotonic() < deadline, "no checkpoint was written in time"
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    newest = max((work / "checkpoints").glob("step-?????????"))
    shutil.copytree(newest, work / "resume")
    return int(newest.name.removeprefix("step-"))


def _losses(work: Path) -> dict[int, float]:
    """The curve by step; of a step that was done twice, the last report counts."""
    file = work / "told" / "0.jsonl"
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    reports = (json.loads(line) for line in lines if line.endswith("\n"))
    points = (each for each in reports if each["type"] == "points")
    return {each["step"]: each["values"]["loss"] for each in points if "loss" in each["values"]}


def _compared(alone: Path, killed: Path) -> dict[str, Any]:
    ours, theirs = _losses(killed), _losses(alone)
    last = sorted(theirs)[-5:]
    weights = [load_file(each / "result" / "model.safetensors") for each in (alone, killed)]
    reports = [json.loads((each / "report.json").read_bytes()) for each in (alone, killed)]
    return {
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        "last_step": max(theirs),
        "last_step_resumed": max(ours),
        "largest_difference_of_losses": max(
            abs(ours.get(step, float("inf")) - theirs[step]) for step in last
        ),
        "same_bits": all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0]),
        "accuracy": reports[0]["test"]["accuracy"],
        "accuracy_resumed": reports[1]["test"]["accuracy"],
    }


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
