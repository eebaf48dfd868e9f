"""A fine-tune against a plain Accelerate loop and transformers' Trainer, with the same recipe.

``python -m benchmarks.finetune CSV [ROWS [ROUNDS]]``: all-MiniLM-L6-v2 on ROWS rows of a CSV file
with the columns ``text`` and ``label``, tested on a quarter as many others. The three take turns,
each in a process of its own. A rate is rows a second of the training loop, without loading,
tokenizing and evaluating, which each does in its own way.
"""

from __future__ import annotations

import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import machine, stack

ROWS = 8_000
ROUNDS = 3
RECIPE: dict[str, Any] = {
    "epochs": 1,
    "batch_rows": 32,
    "learning_rate": 5e-5,
    "warmup": 0.06,
    "weight_decay": 0.01,
    "max_grad_norm": 1.0,
    "max_tokens": 256,
}
CONTENDERS = ("nightshift", "plain_loop", "trainer")

Rows = list[tuple[str, str]]
Figures = dict[str, float]
"""``rate`` and ``accuracy``."""


def main(corpus: Path, rows: int = ROWS, rounds: int = ROUNDS) -> None:
    runs: dict[str, list[Figures]] = {name: [] for name in CONTENDERS}
    for turn in range(rounds):
        for name in CONTENDERS[turn % 3 :] + CONTENDERS[: turn % 3]:
            runs[name].append(_in_process(name, corpus, rows=rows, seed=turn))
            print(f"round {turn + 1}: {name} {runs[name][-1]}", flush=True)
    ours = [each["rate"] for each in runs["nightshift"]]
    figures: dict[str, Any] = {"rows": rows, "test_rows": rows // 4, "rounds": rounds}
    for name in CONTENDERS:
        for figure in ("rate", "accuracy"):
            values = [each[figure] for each in runs[name]]
            figures[f"{name}_{figure}_median"] = statistics.median(values)
    for name in CONTENDERS[1:]:
        pairs = zip(ours, (each["rate"] for each in runs[name]), strict=True)
        figures[f"rate_over_{name}_median"] = statistics.median(a / b for a, b in pairs)
    machine.keep("finetune", figures | {"recipe": RECIPE, "each": runs})


def _in_process(name: str, corpus: Path, *, rows: int, seed: int) -> Figures:
    command = [sys.executable, "-m", "benchmarks.finetune"]
    command += ["one", name, str(corpus), str(rows), str(seed)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(len(os.sched_getaffinity(0)))}
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, env=environment)
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def _one(name: str, corpus: Path, *, rows: int, seed: int) -> Figures:
    train, test = _split(corpus, rows=rows)
    match name:
        case "nightshift":
            return _nightshift(train, test, seed=seed)
        case "plain_loop":
            return _plain_loop(train, test, seed=seed)
        case _:
            return _trainer(train, test, seed=seed)


def _split(corpus: Path, *, rows: int) -> tuple[Rows, Rows]:
    with corpus.open(newline="", encoding="utf-8") as file:
        labelled = [(row["text"], row["label"]) for row in csv.DictReader(file)]
    assert len(labelled) >= rows + rows // 4, "the file has too few rows"
    return labelled[:rows], labelled[rows : rows + rows // 4]


def _labels(rows: Rows) -> list[str]:
    return sorted({label for _, label in rows})


def _nightshift(train: Rows, test: Rows, *, seed: int) -> Figures:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        folder = Path(name)
        # Enough validation rows for the program to have some, and too few to take time.
        for split, rows in (("train", train), ("validation", test[:32]), ("test", test)):
            _write_shard(folder / "data" / split, rows)
        (folder / "base").symlink_to(stack.minilm())
        spec = {"kind": "finetune", "corpus": {"file": "file-1"}, "base": "minilm", "model": "it"}
        run = {
            "job_id": "job-benchmark",
            "run_number": 1,
            "spec": spec | {"train": RECIPE | {"seed": seed}},
            "dataset": {"labels": _labels(train)},
        }
        (folder / "run.json").write_text(json.dumps(run))
        command = [sys.executable, "-m", "workers.training.train", str(folder / "run.json")]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        report = json.loads((folder / "report.json").read_bytes())
        seconds = sum(_seconds(folder / "told" / "0.jsonl", rows=len(train)))
        return {"rate": len(train) / seconds, "accuracy": report["test"]["accuracy"]}


def _seconds(reports: Path, *, rows: int) -> Iterator[float]:
    """The seconds between each two points of the curve."""
    done = 0
    for line in map(json.loads, reports.read_text().splitlines()):
        rate = line.get("values", {}).get("samples_per_second")
        if rate is not None:
            step_rows = min(line["step"] * RECIPE["batch_rows"], rows) - done
            done += step_rows
            yield step_rows / rate


def _write_shard(folder: Path, rows: Rows) -> None:
    folder.mkdir(parents=True)
    texts, labels = zip(*rows, strict=True)
    places = list(range(len(rows)))
    table = pa.table({"row": places, "line": places, "text": texts, "target": labels})
    pq.write_table(table, folder / "000000.parquet")


def _plain_loop(train: Rows, test: Rows, *, seed: int) -> Figures:
    """As the guides write it: a DataLoader that pads each batch, AdamW, one step a batch."""
    import torch  # noqa: PLC0415 - a contender's own process
    from accelerate import Accelerator  # noqa: PLC0415
    from accelerate.utils import set_seed  # noqa: PLC0415
    from torch.utils.data import DataLoader  # noqa: PLC0415
    from transformers import (  # noqa: PLC0415
        DataCollatorWithPadding,
        get_linear_schedule_with_warmup,
    )

    set_seed(seed)
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    tokenizer, model, rows, test_rows = _prepared(train, test)
    collate = DataCollatorWithPadding(tokenizer)
    size = RECIPE["batch_rows"]
    loader: Any = DataLoader(rows, batch_size=size, shuffle=True, collate_fn=collate)
    optimizer: Any = torch.optim.AdamW(_groups(model), lr=RECIPE["learning_rate"])
    total = len(loader) * RECIPE["epochs"]
    warm = -int(-RECIPE["warmup"] * total // 1)
    schedule: Any = get_linear_schedule_with_warmup
    scheduler = schedule(optimizer, warm, total)
    model, optimizer, loader, scheduler = accelerator.prepare(model, optimizer, loader, scheduler)
    model.train()
    began = time.perf_counter()
    for _ in range(RECIPE["epochs"]):
        for batch in loader:
            loss = model(**batch).loss
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), RECIPE["max_grad_norm"])
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
    seconds = time.perf_counter() - began
    tests = DataLoader(test_rows, batch_size=64, collate_fn=collate)
    return {"rate": len(train) / seconds, "accuracy": _accuracy(model, tests, accelerator.device)}


def _trainer(train: Rows, test: Rows, *, seed: int) -> Figures:
    import torch  # noqa: PLC0415
    from torch.utils.data import DataLoader  # noqa: PLC0415
    from transformers import (  # noqa: PLC0415
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    set_seed(seed)
    tokenizer, model, rows, test_rows = _prepared(train, test)
    collate = DataCollatorWithPadding(tokenizer)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=RECIPE["epochs"],
            per_device_train_batch_size=RECIPE["batch_rows"],
            learning_rate=RECIPE["learning_rate"],
            warmup_steps=RECIPE["warmup"],  # below one: a share
            weight_decay=RECIPE["weight_decay"],
            max_grad_norm=RECIPE["max_grad_norm"],
            lr_scheduler_type="linear",
            seed=seed,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
        )
        trainer: Any = Trainer(
            model=model, args=arguments, train_dataset=rows, data_collator=collate
        )
        seconds = trainer.train().metrics["train_runtime"]
    tests = DataLoader(test_rows, batch_size=64, collate_fn=collate)
    return {"rate": len(train) / seconds, "accuracy": _accuracy(model, tests, model.device)}


def _prepared(train: Rows, test: Rows) -> tuple[Any, Any, Any, Any]:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer  # noqa: PLC0415

    names, tokenizers, models = _labels(train), AutoTokenizer, AutoModelForSequenceClassification
    tokenizer = tokenizers.from_pretrained(stack.minilm())
    model: Any = models.from_pretrained(stack.minilm(), num_labels=len(names))
    encoded = []
    for rows in (train, test):
        texts = [text for text, _ in rows]
        ids = tokenizer(texts, truncation=True, max_length=RECIPE["max_tokens"])["input_ids"]
        pairs = zip(ids, rows, strict=True)
        encoded.append(
            [{"input_ids": row, "labels": names.index(label)} for row, (_, label) in pairs]
        )
    return tokenizer, model, encoded[0], encoded[1]


def _groups(model: Any) -> list[dict[str, Any]]:
    decay = [each for each in model.parameters() if each.ndim > 1]
    rest = [each for each in model.parameters() if each.ndim <= 1]
    return [
        {"params": decay, "weight_decay": RECIPE["weight_decay"]},
        {"params": rest, "weight_decay": 0.0},
    ]


def _accuracy(model: Any, batches: Any, device: Any) -> float:
    import torch  # noqa: PLC0415

    model.eval()
    right = total = 0
    with torch.no_grad():
        for batch in batches:
            there = {name: value.to(device) for name, value in batch.items()}
            predicted = model(**there).logits.argmax(dim=1)
            right += int((predicted == there["labels"]).sum())
            total += len(predicted)
    return right / total


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["one", name, corpus, rows, seed]:
            print(json.dumps(_one(name, Path(corpus), rows=int(rows), seed=int(seed))))
        case [corpus, *sizes]:
            main(Path(corpus), *map(int, sizes))
        case _:
            sys.exit(__doc__)
