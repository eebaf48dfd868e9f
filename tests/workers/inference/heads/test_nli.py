"""Zero-shot labels by NLI against the pipeline of transformers, with real models of two layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from jobs.errors import ModelFailure
from jobs.kinds import ClassifyOptions
from tests.support.tiny_models import MAX_TOKENS, Family, tiny_classifier, tiny_encoder
from tests.workers.inference.builders import answers, loaded, no_beat, predictions, some_texts
from workers.inference.tasks.classifier import Classifier, Prediction

OUTPUTS = ("contradiction", "neutral", "entailment")
LABELS = ("the team", "a distant galaxy", "the bank", "球队")
HYPOTHESIS = "a new phone of {} ."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_classifier(tmp_path_factory.mktemp("models") / "nli", labels=OUTPUTS)


def zero_shot(folder: Path, **options: Any) -> Classifier:
    return loaded(folder, labels=LABELS, hypothesis=HYPOTHESIS, **options)


def pipeline_scores(
    folder: Path, texts: list[str], *, multi_label: bool = False
) -> list[dict[str, float]]:
    """Each label's score by the pipeline of transformers, one text at a time."""
    make: Any = pipeline
    auto: Any = AutoModelForSequenceClassification
    tokenizers: Any = AutoTokenizer
    pipe = make(
        "zero-shot-classification",
        model=auto.from_pretrained(folder),
        tokenizer=tokenizers.from_pretrained(folder),
        device="cpu",
    )
    labels = {"candidate_labels": list(LABELS), "hypothesis_template": HYPOTHESIS}
    found = [pipe(text, multi_label=multi_label, **labels) for text in texts]
    return [dict(zip(each["labels"], each["scores"], strict=True)) for each in found]


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta"])
@pytest.mark.parametrize("outputs", [OUTPUTS, ("entailment", "not_entailment")])
@pytest.mark.parametrize("multi_label", [True, False])
def test_labels_and_scores_are_those_of_the_pipeline(
    family: Family, outputs: tuple[str, ...], tmp_path: Path, *, multi_label: bool
) -> None:
    folder = tiny_classifier(tmp_path / "model", family=family, labels=outputs)
    texts = some_texts(30, longest=6)
    found = zero_shot(folder, all_scores=True, multi_label=multi_label).classify(
        texts, beat=no_beat
    )
    for prediction, expected in zip(
        found, pipeline_scores(folder, texts, multi_label=multi_label), strict=True
    ):
        assert isinstance(prediction, Prediction)
        scores = dict(zip(prediction.labels, prediction.scores, strict=True))
        assert scores == pytest.approx(expected, abs=1e-5)
        assert list(prediction.scores) == sorted(prediction.scores, reverse=True)


def test_with_any_number_of_labels_those_over_the_threshold_hold(folder: Path) -> None:
    texts = some_texts(30, longest=20)
    found = predictions(
        folder, texts, labels=LABELS, hypothesis=HYPOTHESIS, multi_label=True, threshold=0.6
    )
    for prediction, scores in zip(
        found, pipeline_scores(folder, texts, multi_label=True), strict=True
    ):
        assert set(prediction.labels) == {each for each in LABELS if scores[each] >= 0.6}
    assert len({len(prediction.labels) for prediction in found}) > 1


def test_the_cutting_changes_no_label(folder: Path) -> None:
    texts = some_texts(60)
    whole = predictions(folder, texts, labels=LABELS, hypothesis=HYPOTHESIS)
    classifier = zero_shot(folder)
    alone = [classifier.classify([text], beat=no_beat)[0] for text in texts]
    assert [each.labels for each in alone if isinstance(each, Prediction)] == [
        each.labels for each in whole
    ]


def test_a_long_text_is_cut_and_the_hypothesis_is_not(folder: Path) -> None:
    long = "the team " * 1_000
    (found,) = predictions(folder, [long], labels=LABELS, hypothesis=HYPOTHESIS, all_scores=True)
    assert found.truncated
    assert found.tokens == len(LABELS) * MAX_TOKENS
    assert len(set(found.scores)) > 1


def test_a_text_without_tokens_is_an_error_row(tmp_path: Path) -> None:
    folder = tiny_classifier(tmp_path / "model", labels=OUTPUTS)
    found = answers(folder, ["\u0000", "the team"], labels=LABELS, hypothesis=HYPOTHESIS)
    assert [type(each).__name__ for each in found] == ["RowError", "Prediction"]


def test_labels_that_leave_no_room_for_a_text_are_refused(folder: Path) -> None:
    long = " ".join(["team"] * MAX_TOKENS)
    with pytest.raises(ModelFailure, match="shorter") as caught:
        loaded(folder, labels=("a", long), hypothesis="{}")
    assert caught.value.code == "model_too_short"


def test_a_model_of_other_labels_is_refused(tmp_path: Path) -> None:
    folder = tiny_classifier(tmp_path / "model")
    with pytest.raises(ModelFailure, match="entailment") as caught:
        zero_shot(folder)
    assert caught.value.code == "model_not_a_classifier"


def test_a_model_without_a_head_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFailure) as caught:
        zero_shot(tiny_encoder(tmp_path / "model"))
    assert caught.value.code == "model_has_no_head"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hypothesis": "about {}"}, "needs labels"),
        ({"hypothesis": "about it", "labels": ("a", "b")}, "{} once"),
        ({"hypothesis": "{} and {}", "labels": ("a", "b")}, "{} once"),
        ({"hypothesis": "{}", "labels": ("a", "b"), "long_texts": "stride"}, "stride"),
    ],
)
def test_a_hypothesis_that_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ClassifyOptions(**options)
