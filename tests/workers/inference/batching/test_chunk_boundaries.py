"""Promise P6: an answer does not depend on how rows are cut into chunks and batches."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from jobs.settings import Settings
from tests.support.tiny_models import Family, tiny_classifier, tiny_encoder
from tests.workers.inference.builders import loaded, no_beat, some_texts
from workers.inference.tasks.classifier import Prediction

HEADS: dict[Family, str] = {"bert": "classifier", "distilbert": "classifier", "gpt2": "score"}
NEAR_LABELS = ("the team won the match", "the team won the match.", "the team won a match")
Answers = dict[str, tuple[str, ...]]


def nearly_tied(folder: Path, *, apart: float, family: Family = "bert") -> Path:
    """A classifier whose labels have equal weights but for noise of size ``apart``."""
    tiny_classifier(folder, family=family)
    weights = load_file(folder / "model.safetensors")
    head, bias = weights[f"{HEADS[family]}.weight"], weights.get(f"{HEADS[family]}.bias")
    generator = torch.Generator().manual_seed(0)
    head[1:] = head[0] + apart * torch.randn(head[1:].shape, generator=generator)
    if bias is not None:
        bias.zero_()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def classified(
    folder: Path, texts: list[str], *, chunk: int, budget: int, **options: Any
) -> Answers:
    """The labels of each text, for chunks and batches of these sizes."""
    settings = Settings(worker_threads=1, batch_tokens=budget)
    classifier = loaded(folder, settings=settings, **options)
    labels: Answers = {}
    for begin in range(0, len(texts), chunk):
        part = texts[begin : begin + chunk]
        for text, answer in zip(part, classifier.classify(part, beat=no_beat), strict=True):
            assert isinstance(answer, Prediction)
            labels[text] = answer.labels
    return labels


def assert_the_same_however_cut(folder: Path, **options: Any) -> None:
    texts = some_texts(90)
    expected = classified(folder, texts, chunk=len(texts), budget=4_096, **options)
    for seed, (chunk, budget) in enumerate([(1, 64), (7, 300), (40, 1_024), (90, 40)]):
        shuffled = random.Random(seed).sample(texts, k=len(texts))
        assert classified(folder, shuffled, chunk=chunk, budget=budget, **options) == expected


@pytest.mark.parametrize(("family", "apart"), [("bert", 0.0), ("bert", 1e-2), ("distilbert", 1e-2)])
def test_labels_in_int8_are_the_same_however_cut(
    tmp_path: Path, family: Family, apart: float
) -> None:
    folder = nearly_tied(tmp_path / "model", apart=apart, family=family)
    assert_the_same_however_cut(folder, int8=True)


@pytest.mark.parametrize("options", [{"all_scores": True}, {"multi_label": True}])
def test_all_that_int8_says_is_the_same_however_cut(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    folder = tiny_classifier(tmp_path / "model")
    assert_the_same_however_cut(folder, int8=True, **options)


@pytest.mark.parametrize("family", HEADS)
@pytest.mark.parametrize("apart", [0.0, 1e-7, 1e-5])
def test_the_best_label_of_a_nearly_tied_head_is_the_same_however_cut(
    tmp_path: Path, family: Family, apart: float
) -> None:
    assert_the_same_however_cut(nearly_tied(tmp_path / "model", apart=apart, family=family))


@pytest.mark.parametrize("options", [{"top_k": 2}, {"all_scores": True}], ids=str)
def test_the_order_of_nearly_tied_labels_is_the_same_however_cut(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    assert_the_same_however_cut(nearly_tied(tmp_path / "model", apart=1e-7), **options)


def test_labels_near_the_threshold_are_the_same_however_cut(tmp_path: Path) -> None:
    folder = tiny_classifier(tmp_path / "model", multi_label=True)
    weights = load_file(folder / "model.safetensors")
    weights["classifier.weight"] *= 1e-7
    weights["classifier.bias"].zero_()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert_the_same_however_cut(folder)


def test_nearest_labels_that_are_nearly_the_same_are_the_same_however_cut(tmp_path: Path) -> None:
    assert_the_same_however_cut(tiny_encoder(tmp_path / "model"), labels=NEAR_LABELS)


def test_strides_are_the_same_however_cut(tmp_path: Path) -> None:
    folder = nearly_tied(tmp_path / "model", apart=1e-7)
    assert_the_same_however_cut(folder, long_texts="stride", max_tokens=24, stride=8)


def test_labels_with_the_same_weights_keep_their_order(tmp_path: Path) -> None:
    folder = nearly_tied(tmp_path / "model", apart=0.0)
    found = classified(folder, some_texts(30), chunk=30, budget=512, top_k=4)
    assert set(found.values()) == {("sports", "science", "business", "world")}
