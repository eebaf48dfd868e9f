from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from jobs.errors import LeaseLost, ModelFailure
from jobs.kinds import LongTexts
from jobs.row_codes import RowCode
from jobs.settings import Settings
from tests.support.tiny_models import LABELS, MAX_TOKENS, Family, tiny_classifier, tiny_encoder
from tests.workers.inference.builders import answers, loaded, no_beat, predictions, some_texts
from workers.inference.batching.forward import RowError
from workers.inference.tasks.classifier import Prediction

FAMILIES: tuple[Family, ...] = ("bert", "distilbert", "roberta", "gpt2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_classifier(tmp_path_factory.mktemp("models") / "single")


@pytest.fixture(scope="module")
def multi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_classifier(tmp_path_factory.mktemp("models") / "multi", multi_label=True)


def plain_logits(folder: Path, texts: list[str]) -> list[torch.Tensor]:
    """The logits of plain transformers, one text at a time."""
    tokenizers: Any = AutoTokenizer
    models: Any = AutoModelForSequenceClassification
    tokenizer, model = tokenizers.from_pretrained(folder), models.from_pretrained(folder).eval()
    limit = {"truncation": True, "max_length": MAX_TOKENS, "return_tensors": "pt"}
    with torch.inference_mode():
        return [model(**tokenizer(text, **limit)).logits[0] for text in texts]


@pytest.mark.parametrize("family", FAMILIES)
def test_labels_and_scores_are_those_of_plain_transformers(family: Family, tmp_path: Path) -> None:
    folder = tiny_classifier(tmp_path / "model", family=family)
    texts = some_texts(60, longest=60)
    found = predictions(folder, texts, all_scores=True)
    for prediction, logits in zip(found, plain_logits(folder, texts), strict=True):
        scores, order = logits.softmax(dim=0).sort(descending=True)
        assert prediction.labels == tuple(LABELS[index] for index in order)
        assert prediction.scores == pytest.approx(scores.tolist(), abs=1e-5)


def test_a_multi_label_model_gives_every_label_over_the_threshold(multi: Path) -> None:
    texts = some_texts(40)
    found = predictions(multi, texts, threshold=0.4)
    for prediction, logits in zip(found, plain_logits(multi, texts), strict=True):
        chosen = {
            label for label, score in zip(LABELS, logits.sigmoid(), strict=True) if score >= 0.4
        }
        assert set(prediction.labels) == chosen
    assert len({len(prediction.labels) for prediction in found}) > 1


def test_the_option_overrules_the_models_own_problem_type(multi: Path) -> None:
    found = predictions(multi, some_texts(10), multi_label=False, all_scores=True)
    assert all(sum(prediction.scores) == pytest.approx(1) for prediction in found)


def test_top_k_gives_that_many_labels_best_first(folder: Path) -> None:
    for prediction in predictions(folder, some_texts(10), top_k=3):
        assert len(prediction.labels) == 3
        assert list(prediction.scores) == sorted(prediction.scores, reverse=True)


def test_a_model_with_one_output_decides_yes_or_no(tmp_path: Path) -> None:
    folder = tiny_classifier(tmp_path / "model", labels=("spam",))
    texts = some_texts(5)
    found = predictions(folder, texts)
    expected = [logits.sigmoid().item() for logits in plain_logits(folder, texts)]
    assert [prediction.labels for prediction in found] == [("spam",)] * 5
    assert [prediction.scores[0] for prediction in found] == pytest.approx(expected, abs=1e-5)


def test_no_texts_have_no_answers(folder: Path) -> None:
    assert answers(folder, []) == []


def test_the_same_text_twice_is_computed_once(folder: Path) -> None:
    beats: list[None] = []
    texts = some_texts(5, longest=3)
    found = loaded(folder).classify(texts * 400, beat=lambda: beats.append(None))
    assert len(beats) <= 5
    assert found == found[:5] * 400


def test_the_token_count_is_that_of_the_tokenizer(folder: Path) -> None:
    texts = some_texts(20)
    tokenizers: Any = AutoTokenizer
    encoded = tokenizers.from_pretrained(folder)(texts)["input_ids"]
    found = predictions(folder, texts)
    assert [prediction.tokens for prediction in found] == [len(ids) for ids in encoded]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_long_text_is_truncated_to_the_models_window_and_says_so(
    family: Family, tmp_path: Path
) -> None:
    folder = tiny_classifier(tmp_path / "model", family=family)
    long, short = predictions(folder, ["the team " * 1_000, "the"])
    assert (long.tokens, long.truncated) == (MAX_TOKENS, True)
    assert (short.tokens <= 5, short.truncated) == (True, False)


def test_an_option_makes_the_window_smaller_but_never_larger(folder: Path) -> None:
    text = ["the team " * 1_000]
    assert predictions(folder, text, max_tokens=20)[0].tokens == 20
    assert predictions(folder, text, max_tokens=9_000)[0].tokens == MAX_TOKENS


def test_a_text_of_exactly_the_window_is_not_truncated(folder: Path) -> None:
    exact, over = predictions(folder, ["the " * (MAX_TOKENS - 2), "the " * (MAX_TOKENS - 1)])
    assert (exact.tokens, exact.truncated) == (MAX_TOKENS, False)
    assert (over.tokens, over.truncated) == (MAX_TOKENS, True)


def test_a_stride_averages_the_scores_of_overlapping_windows(folder: Path) -> None:
    words = some_texts(1, longest=200, seed=3)[0].replace("。", "").split()
    words = [word for word in words if word.isascii()][:18]
    options: dict[str, Any] = {"max_tokens": 12, "all_scores": True}
    tokenizers: Any = AutoTokenizer
    encoded = tokenizers.from_pretrained(folder)(
        " ".join(words),
        truncation=True,
        max_length=12,
        stride=4,
        return_overflowing_tokens=True,
    )["input_ids"]
    models: Any = AutoModelForSequenceClassification
    model = models.from_pretrained(folder).eval()
    with torch.inference_mode():
        each = [model(torch.tensor([ids])).logits[0].softmax(dim=0) for ids in encoded]
    expected = torch.stack(each).mean(dim=0)
    [found] = predictions(
        folder, [" ".join(words)], long_texts=LongTexts.STRIDE, stride=4, **options
    )
    assert len(encoded) > 1
    assert dict(zip(found.labels, found.scores, strict=True)) == pytest.approx(
        dict(zip(LABELS, expected.tolist(), strict=True)), abs=1e-5
    )
    assert (found.tokens, found.truncated) == (sum(map(len, encoded)), False)


def test_a_stride_wider_than_the_window_still_moves_on(folder: Path) -> None:
    [found] = predictions(
        folder, ["the team " * 50], long_texts=LongTexts.STRIDE, stride=500, max_tokens=8
    )
    assert 100 < found.tokens < 500


def test_a_text_without_tokens_is_an_error_row_and_its_neighbours_are_not(folder: Path) -> None:
    found = answers(folder, ["the team", "\u200b", "the president"])
    assert [type(answer) for answer in found] == [Prediction, RowError, Prediction]
    assert isinstance(found[1], RowError)
    assert found[1].code is RowCode.NO_TOKENS


def test_numbers_that_are_not_finite_are_an_error_of_their_row_alone(
    folder: Path, tmp_path: Path
) -> None:
    poisoned = tiny_classifier(tmp_path / "model")
    tokenizers: Any = AutoTokenizer
    [bad] = tokenizers.from_pretrained(folder)("galaxy", add_special_tokens=False)["input_ids"]
    weights = load_file(poisoned / "model.safetensors")
    weights["bert.embeddings.word_embeddings.weight"][bad] = float("nan")
    save_file(weights, poisoned / "model.safetensors", metadata={"format": "pt"})
    texts = [text for text in some_texts(50) if "galaxy" not in text]
    sick = ["a galaxy of words"]
    found = answers(poisoned, [*texts[:20], *sick, *texts[20:]])
    error = found.pop(20)
    assert isinstance(error, RowError)
    assert error.code is RowCode.NOT_FINITE
    assert found == answers(poisoned, texts)


def test_what_beat_raises_stops_the_work_at_once(folder: Path) -> None:
    beats: list[None] = []

    def beat() -> None:
        beats.append(None)
        raise LeaseLost("another worker has the chunk")

    settings = Settings(worker_threads=1, batch_tokens=32)
    with pytest.raises(LeaseLost):
        loaded(folder, settings=settings).classify(some_texts(500), beat=beat)
    assert len(beats) == 1
    assert "prefetch" not in [thread.name for thread in threading.enumerate()]


def test_a_classifier_goes_on_after_it_was_stopped(folder: Path) -> None:
    def stop() -> None:
        raise LeaseLost("another worker has the chunk")

    classifier, texts = loaded(folder), some_texts(30)
    with pytest.raises(LeaseLost):
        classifier.classify(texts, beat=stop)
    assert classifier.classify(texts, beat=no_beat) == answers(folder, texts)


def test_beat_is_called_after_every_batch(folder: Path) -> None:
    beats: list[None] = []
    settings = Settings(worker_threads=1, batch_tokens=1)
    texts = some_texts(50)
    loaded(folder, settings=settings).classify(texts, beat=lambda: beats.append(None))
    assert len(beats) >= 50


def test_the_same_weights_have_the_same_digest(folder: Path, tmp_path: Path) -> None:
    twin, other = tiny_classifier(tmp_path / "twin"), tiny_classifier(tmp_path / "other", seed=1)
    assert loaded(folder).digest == loaded(twin).digest != loaded(other).digest


def test_the_model_computes_in_the_dtype_of_the_options(folder: Path) -> None:
    exact, rough = (
        predictions(folder, some_texts(20), dtype=dtype, all_scores=True)
        for dtype in ("float32", "bfloat16")
    )
    assert exact != rough
    for one, other in zip(exact, rough, strict=True):
        near = dict(zip(other.labels, other.scores, strict=True))
        assert near == pytest.approx(dict(zip(one.labels, one.scores, strict=True)), abs=0.2)


def failure(folder: Path, **options: Any) -> str:
    with pytest.raises(ModelFailure) as caught:
        loaded(folder, **options)
    return caught.value.code


def test_weights_that_lack_the_head_are_not_initialized_at_random(tmp_path: Path) -> None:
    folder = tiny_classifier(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    del weights["classifier.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert failure(folder) == "model_unreadable"


def test_a_tokenizer_that_cannot_be_read_is_a_failure_of_the_model(tmp_path: Path) -> None:
    folder = tiny_classifier(tmp_path / "model")
    (folder / "tokenizer.json").write_text("{")
    assert failure(folder) == "model_no_tokenizer"


def test_an_unknown_architecture_is_a_failure_of_the_model(tmp_path: Path) -> None:
    folder = tiny_classifier(tmp_path / "model")
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"model_type": "bert"', '"model_type": "tomorrow"'))
    assert failure(folder) == "model_unreadable"


def test_an_encoder_without_labels_is_a_failure_of_the_model(tmp_path: Path) -> None:
    assert failure(tiny_encoder(tmp_path / "model")) == "model_has_no_head"
