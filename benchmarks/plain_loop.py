"""The plain loop that the engine is compared with: transformers, one sort, one pass.

It shares no code with the engine. Texts are tokenized up front, sorted by length, cut into batches
by a budget of padded tokens, and given the best label: of the head, or, with label texts, the
nearest by the cosine of mean-pooled embeddings.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

Batch = dict[str, torch.Tensor]


def run(
    folder: Path,
    texts: Sequence[str],
    labels: Sequence[str] | None,
    *,
    budget: int = 1_024,
    threads: int = 0,
    max_tokens: int = 256,
) -> tuple[list[str], float]:
    """The best label of each text, and the seconds that they took without loading the model.

    ``threads`` 0 leaves torch's number of threads as it is.
    """
    if threads:
        torch.set_num_threads(threads)
    loader: Any = AutoTokenizer
    tokenizer = loader.from_pretrained(folder, local_files_only=True)
    model = _model(folder, labels)
    with torch.inference_mode():
        points = (
            _embed(model, tokenizer(list(labels), padding=True, return_tensors="pt"))
            if labels
            else None
        )
        began = time.perf_counter()
        best = _best(model, tokenizer, texts, points=points, budget=budget, max_tokens=max_tokens)
        seconds = time.perf_counter() - began
    names = labels or [model.config.id2label[index] for index in range(len(model.config.id2label))]
    return [names[index] for index in best], seconds


def _model(folder: Path, labels: Sequence[str] | None) -> Any:
    auto: Any = AutoModelForSequenceClassification if labels is None else AutoModel
    return auto.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, local_files_only=True
    ).eval()


def _best(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str],
    *,
    points: torch.Tensor | None,
    budget: int,
    max_tokens: int,
) -> list[int]:
    ids = tokenizer(list(texts), truncation=True, max_length=max_tokens)["input_ids"]
    best = [0] * len(texts)
    for batch in batches([len(each) for each in ids], budget=budget):
        rows = {"input_ids": [ids[index] for index in batch]}
        inputs = tokenizer.pad(rows, return_tensors="pt")
        scores = model(**inputs).logits if points is None else _embed(model, inputs) @ points.T
        for index, label in zip(batch, scores.argmax(dim=1).tolist(), strict=True):
            best[index] = label
    return best


def batches(lengths: list[int], *, budget: int) -> Iterator[list[int]]:
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > budget:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _embed(model: Any, inputs: Batch) -> torch.Tensor:
    mask = inputs["attention_mask"].unsqueeze(-1)
    states = model(**inputs).last_hidden_state
    return functional.normalize((states * mask).sum(dim=1) / mask.sum(dim=1), dim=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="the model")
    parser.add_argument("corpus", type=Path, help="a CSV file with a column `text`")
    parser.add_argument("--labels", help="label texts, divided by commas")
    parser.add_argument("--rows", type=int, default=1_000)
    parser.add_argument("--budget", type=int, default=1_024)
    given = parser.parse_args()
    with given.corpus.open(newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)][: given.rows]
    labels = given.labels.split(",") if given.labels else None
    _, seconds = run(given.folder, texts, labels, budget=given.budget)
    print(f"{len(texts)} rows in {seconds:.2f} s: {len(texts) / seconds:.0f} rows/s")


if __name__ == "__main__":
    main()
