"""Builders for the tests of this room: texts, classifiers and their answers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from jobs.kinds import ClassifyOptions
from jobs.settings import Settings
from tests.support.tiny_models import SENTENCES
from workers.inference import engine
from workers.inference.batching.forward import RowError
from workers.inference.tasks.classifier import Classifier, Prediction

NEAR = 1e-4
WORDS = [*" ".join(SENTENCES[:5]).split(), *SENTENCES[5:]]


def some_texts(count: int, *, longest: int = 30, seed: int = 0) -> list[str]:
    """Different mixtures of English words and Chinese sentences, of many lengths."""
    chance = random.Random(seed)
    texts: dict[str, None] = {}
    while len(texts) < count:
        texts[" ".join(chance.choices(WORDS, k=chance.randint(1, longest)))] = None
    return list(texts)


def loaded(folder: Path, *, settings: Settings | None = None, **options: Any) -> Classifier:
    """The folder's classifier with one thread, and options as keywords."""
    settings = settings or Settings(worker_threads=1)
    return engine.load(folder, ClassifyOptions(**options), settings=settings)


def answers(
    folder: Path, texts: Sequence[str], *, settings: Settings | None = None, **options: Any
) -> list[Prediction | RowError]:
    return loaded(folder, settings=settings, **options).classify(texts, beat=no_beat)


def predictions(
    folder: Path, texts: Sequence[str], *, settings: Settings | None = None, **options: Any
) -> list[Prediction]:
    """The answers, none of which may be an error."""
    found = answers(folder, texts, settings=settings, **options)
    assert not [answer for answer in found if isinstance(answer, RowError)]
    return [answer for answer in found if isinstance(answer, Prediction)]


def no_beat() -> None:
    """The heartbeat of a worker that is never stopped."""


def assert_near(found: Any, expected: Any) -> None:
    """Assert that two JSON values are equal, but for the last digits of floats."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert_near(found[name], value)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_near(one, other)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, abs=NEAR)
    else:
        assert found == expected
