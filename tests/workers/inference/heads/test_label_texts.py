"""Label texts that the model cannot distinguish are refused, whatever makes them the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from jobs.errors import ModelFailure
from jobs.kinds import PipelineOptions
from jobs.settings import Settings
from tests.support import tiny_pipelines
from tests.support.tiny_models import tiny_classifier, tiny_encoder
from tests.workers.inference.builders import loaded, predictions
from workers.inference import engine
from workers.inference.heads import label_texts

CHINESE = ("体育", "财经", "房产", "家居", "教育", "科技", "时尚", "时政", "游戏", "娱乐")
"""Most of their characters are unknown to the tiny tokenizer."""


def refusal(folder: Path, *labels: str, hypothesis: str | None = None) -> str:
    with pytest.raises(ModelFailure) as caught:
        loaded(folder, labels=labels, hypothesis=hypothesis)
    assert caught.value.code == "labels_indistinguishable"
    return caught.value.message


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("models") / "encoder")


@pytest.fixture(scope="module")
def inference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "inference"
    return tiny_classifier(folder, labels=("entailment", "neutral", "contradiction"))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("the team", "The TEAM"),  # the tokenizer drops case,
        ("the team", "the  team"),  # white space,
        ("the team", "the team\u200b"),  # format characters
        ("the team", "thé team"),  # and accents;
        ("體育", "財經"),  # and what it does not know is all the same to it
    ],
)
def test_labels_of_the_same_tokens_are_refused_and_both_are_named(
    encoder: Path, inference: Path, first: str, second: str
) -> None:
    for message in (
        refusal(encoder, "a phone", first, second),
        refusal(inference, "a phone", first, second, hypothesis="a new phone of {} ."),
    ):
        assert f"the labels {first!r} and {second!r}" in message
        assert "become the same tokens" in message


def test_the_message_names_the_tokens_and_how_many_labels_are_alike(encoder: Path) -> None:
    message = refusal(encoder, *CHINESE, "the team", "The team")
    assert (
        "'体育' and '财经' apart: they become the same tokens, [CLS] [UNK] [UNK] [SEP]" in message
    )
    assert "(of 12 labels 10 are like another, in 3 groups)" in message


def test_candidate_labels_of_images_are_refused_too(tmp_path: Path) -> None:
    options = PipelineOptions(parameters={"candidate_labels": ["the team", "\u9ad4", "\u8ca1"]})
    folder = tiny_pipelines.image_matcher(tmp_path / "model")
    with pytest.raises(ModelFailure, match="'\u9ad4' and '\u8ca1' apart") as caught:
        engine.load(folder, options, settings=Settings(worker_threads=1))
    assert caught.value.code == "labels_indistinguishable"


def test_labels_cut_to_the_same_beginning_are_refused(encoder: Path) -> None:
    long = " ".join(["team"] * 200)
    message = refusal(encoder, f"{long} wins", f"{long} loses")
    assert "[CLS] team team" in message
    assert len(message) < 600


def test_labels_of_the_same_embedding_are_refused(tmp_path: Path) -> None:
    folder = tiny_encoder(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.word_embeddings.weight"].zero_()  # outputs depend on lengths only
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    message = refusal(folder, "the team", "of the phone", "a phone")
    assert "'the team' and 'a phone' apart: they have the same embedding" in message


def test_labels_that_differ_by_a_full_stop_are_distinguished(encoder: Path) -> None:
    labels = ("the team won the match", "the team won the match.")
    assert [each.labels[0] for each in predictions(encoder, labels, labels=labels)] == [*labels]


def test_embeddings_are_the_same_within_the_tie_and_not_beyond() -> None:
    vectors = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [1.0, 1e-6], [0.0, 1.0]]))
    with pytest.raises(ModelFailure, match="'a' and 'b' apart"):
        label_texts.check_embeddings(("a", "b", "c"), vectors, tie=2e-6)
    label_texts.check_embeddings(("a", "b", "c"), vectors, tie=0.5e-6)


def test_embeddings_that_are_not_finite_are_not_called_the_same() -> None:
    label_texts.check_embeddings(("a", "b"), torch.full((2, 3), float("nan")), tie=1e-6)
