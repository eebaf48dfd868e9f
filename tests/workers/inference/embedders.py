"""Builders for the tests of embeddings: embedders, and the vectors of plain transformers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from jobs.errors import ModelFailure
from jobs.kinds import EmbedOptions
from jobs.progress import Beat
from jobs.settings import Settings
from tests.support.tiny_models import MAX_TOKENS
from tests.workers.inference.builders import no_beat
from workers.inference import engine
from workers.inference.batching.forward import RowError
from workers.inference.engine import Engine
from workers.inference.tasks.embedder import Embedding

WIDTH = 32
NEAR = 1e-5
POOLED: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "mean": lambda states: states.mean(dim=0),
    "cls": lambda states: states[0],
    "lasttoken": lambda states: states[-1],
    "max": lambda states: states.amax(dim=0),
    "mean_sqrt_len": lambda states: states.sum(dim=0) / len(states) ** 0.5,
}

Vector = npt.NDArray[np.float32]


def loaded(folder: Path, *, batch_tokens: int = 0, **options: Any) -> Engine:
    settings = Settings(worker_threads=1, batch_tokens=batch_tokens)
    return engine.load(folder, EmbedOptions(**options), settings=settings)


def answers(
    embedder: Engine, texts: Sequence[str], *, beat: Beat = no_beat
) -> list[Embedding | RowError]:
    found: Any = embedder.answer(dict(enumerate(texts)), beat=beat)
    assert list(found) == list(range(len(texts)))
    return list(found.values())


def embeddings(folder: Path, texts: Sequence[str], **options: Any) -> list[Embedding]:
    """The answers, none of which may be an error."""
    found = answers(loaded(folder, **options), texts)
    assert not [answer for answer in found if isinstance(answer, RowError)]
    return [answer for answer in found if isinstance(answer, Embedding)]


def vectors(folder: Path, texts: Sequence[str], **options: Any) -> list[Vector]:
    return [each.vector for each in embeddings(folder, texts, **options)]


def plain(
    folder: Path, texts: Sequence[str], *, pooling: str = "mean", window: int = MAX_TOKENS
) -> list[Vector]:
    """The vectors of plain transformers, one text at a time."""
    tokenizers: Any = AutoTokenizer
    models: Any = AutoModel
    tokenizer, model = tokenizers.from_pretrained(folder), models.from_pretrained(folder).eval()
    limit = {"truncation": True, "max_length": window, "return_tensors": "pt"}
    with torch.inference_mode():
        states = [model(**tokenizer(text, **limit)).last_hidden_state[0] for text in texts]
    return [POOLED[pooling](each).numpy() for each in states]


def unit(each: Vector) -> Vector:
    return np.asarray(each / np.linalg.norm(each), np.float32)


def assert_near(found: Sequence[Vector], expected: Sequence[Vector]) -> None:
    """Assert that every element is within 1e-5 of the vector's length."""
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert np.abs(one - other).max() <= NEAR * max(1.0, float(np.linalg.norm(other)))


def refusal(folder: Path, **options: Any) -> ModelFailure:
    with pytest.raises(ModelFailure) as caught:
        loaded(folder, **options)
    return caught.value
