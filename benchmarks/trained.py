"""A real classifier for benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from benchmarks import stack

MAX_TOKENS = 512


def classifier(folder: Path, *, texts: Sequence[str], labels: Sequence[str]) -> None:
    """Write all-MiniLM-L6-v2 with a head: a logistic regression on the output of its pooler."""
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415

    base = stack.minilm()
    names = sorted(set(labels))
    auto, tokenizers = AutoModelForSequenceClassification, AutoTokenizer
    tokenizer: Any = tokenizers.from_pretrained(base)
    torch.manual_seed(0)
    model: Any = auto.from_pretrained(
        base, num_labels=len(names), id2label=dict(enumerate(names)), dtype=torch.float32
    ).eval()
    with torch.inference_mode():
        pooled = torch.cat(
            [model.bert(**_tensors(tokenizer, text)).pooler_output for text in texts]
        )
    head = LogisticRegression(max_iter=1_000).fit(pooled.numpy(), labels)
    with torch.no_grad():
        model.classifier.weight.copy_(torch.from_numpy(head.coef_))
        model.classifier.bias.copy_(torch.from_numpy(head.intercept_))
    model.save_pretrained(folder)
    tokenizer.model_max_length = MAX_TOKENS
    tokenizer.save_pretrained(folder)


def _tensors(tokenizer: Any, text: str) -> Any:
    return tokenizer(text, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
