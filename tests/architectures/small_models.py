"""Builders: small models from scratch, trained on rows in which one word decides the label."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from jobs.kinds import Architecture, Task
from workers.training import from_scratch

WORDS = {
    "sports": ("goal", "match", "球队", "决赛"),
    "science": ("galaxy", "light", "科学家", "星系"),
    "business": ("shares", "bank", "银行", "股价"),
}
LABELS = tuple(sorted(WORDS))
FILLER = ["the", "of", "a", "on", "and", "的", "了", "在", "新", "今天"]
RATES = {Architecture.TRANSFORMER: 5e-4, Architecture.TEXTCNN: 2e-3, Architecture.LSTM: 4e-3}


def some_rows(count: int, *, seed: int = 0, longest: int = 12) -> list[tuple[str, str]]:
    """Texts of many lengths, and their labels: each text has one of the label's words."""
    chance = random.Random(seed)
    return [_row(chance, longest=longest) for _ in range(count)]


def _row(chance: random.Random, *, longest: int) -> tuple[str, str]:
    label = chance.choice(LABELS)
    words = chance.choices(FILLER, k=chance.randint(0, longest))
    words.insert(chance.randint(0, len(words)), chance.choice(WORDS[label]))
    return " ".join(words), label


def untrained(
    architecture: Architecture,
    folder: Path,
    *,
    task: Task = Task.CLASSIFY,
    multi_label: bool = False,
    max_tokens: int | None = 64,
) -> Path:
    """A folder as ``from_scratch`` builds it from 500 rows."""
    from_scratch.build(
        architecture,
        task=task,
        texts=[text for text, _ in some_rows(500)],
        labels=LABELS if task is Task.CLASSIFY else None,
        multi_label=multi_label,
        seed=7,
        max_tokens=max_tokens,
        folder=folder,
    )
    return folder


def trained(
    architecture: Architecture, folder: Path, *, steps: int = 100, multi_label: bool = False
) -> Path:
    """The same after some steps of AdamW on 32 rows each."""
    untrained(architecture, folder, multi_label=multi_label)
    tokenizer, model = loaded(folder, AutoModelForSequenceClassification)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATES[architecture])
    with torch.random.fork_rng():
        torch.manual_seed(7)
        for step in range(steps):
            rows = some_rows(32, seed=1_000 + step)
            model(**batch(tokenizer, rows, multi_label=multi_label)).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    model.save_pretrained(folder)
    return folder


def loaded(folder: Path, auto: Any) -> tuple[Any, Any]:
    """The tokenizer and the model, loaded by transformers."""
    tokenizers: Any = AutoTokenizer
    return tokenizers.from_pretrained(folder), auto.from_pretrained(folder).eval()


def batch(tokenizer: Any, rows: Sequence[tuple[str, str]], *, multi_label: bool) -> Any:
    inputs = tokenizer([text for text, _ in rows], padding=True, return_tensors="pt")
    ids = torch.tensor([LABELS.index(label) for _, label in rows])
    flags = torch.nn.functional.one_hot(ids, len(LABELS)).float()
    return {**inputs, "labels": flags if multi_label else ids}
