"""Pairs of texts in one window, against plain transformers."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from jobs import kinds
from jobs.row_codes import RowCode
from jobs.settings import Settings
from tests.support.tiny_models import MAX_TOKENS, Family, tiny_classifier
from tests.workers.inference.builders import WORDS, loaded, no_beat, some_texts
from workers.inference.batching.forward import RowError
from workers.inference.batching.tokenization import PairedText, WindowTokenizer
from workers.inference.tasks.classifier import Prediction

LABELS = ("contradiction", "neutral", "entailment")


def pairs(count: int, *, longest: int = 20) -> list[PairedText]:
    texts = some_texts(2 * count, longest=longest)
    return [PairedText(*both) for both in zip(texts[:count], texts[count:], strict=True)]


def plain_scores(folder: Path, rows: list[PairedText]) -> list[list[float]]:
    auto: Any = AutoModelForSequenceClassification
    tokenizers: Any = AutoTokenizer
    model, tokenizer = auto.from_pretrained(folder).eval(), tokenizers.from_pretrained(folder)
    limit = {"truncation": True, "max_length": MAX_TOKENS, "return_tensors": "pt"}
    with torch.inference_mode():
        logits = [model(**tokenizer(row.text, row.second, **limit)).logits[0] for row in rows]
    return [each.softmax(dim=0).tolist() for each in logits]


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta"])
def test_pairs_have_the_scores_of_plain_transformers(family: Family, tmp_path: Path) -> None:
    folder = tiny_classifier(tmp_path / "model", family=family, labels=LABELS)
    rows = [*pairs(40), *pairs(3, longest=2 * MAX_TOKENS)]
    found = loaded(folder, all_scores=True).classify(rows, beat=no_beat)
    for answer, scores in zip(found, plain_scores(folder, rows), strict=True):
        assert isinstance(answer, Prediction)
        by_label = dict(zip(answer.labels, answer.scores, strict=True))
        assert [by_label[label] for label in LABELS] == pytest.approx(scores, abs=1e-5)
        assert answer.truncated == (answer.tokens == MAX_TOKENS)
    assert any(isinstance(answer, Prediction) and answer.truncated for answer in found)


def test_labels_do_not_depend_on_how_pairs_are_batched(tmp_path: Path) -> None:
    folder = tiny_classifier(tmp_path / "model", labels=LABELS)
    rows = pairs(60)
    alone = [loaded(folder).classify([row], beat=no_beat)[0] for row in rows[:10]]
    for budget in (16, 4_096):
        settings = Settings(worker_threads=1, batch_tokens=budget)
        found = loaded(folder, settings=settings).classify(rows, beat=no_beat)
        for one, together in zip(alone, found[:10], strict=True):
            assert isinstance(one, Prediction)
            assert isinstance(together, Prediction)
            assert one.labels == together.labels


def test_the_second_text_matters_and_equal_pairs_are_computed_once(tmp_path: Path) -> None:
    folder = tiny_classifier(tmp_path / "model", labels=LABELS)
    rows = [
        PairedText("the team", "won"),
        PairedText("the team", "a phone"),
        PairedText("the team", "won"),
    ]
    first, second, again = loaded(folder, all_scores=True).classify(rows, beat=no_beat)
    assert first == again
    assert first != second


def test_a_pair_of_which_one_text_has_no_tokens_is_an_error_row(tmp_path: Path) -> None:
    folder = tiny_classifier(tmp_path / "model", labels=LABELS)
    rows = [
        PairedText("the team", "\x01"),
        PairedText("\x01", "the team"),
        PairedText("the team", "won"),
    ]
    found = loaded(folder).classify(rows, beat=no_beat)
    assert [isinstance(answer, RowError) for answer in found] == [True, True, False]
    assert all(answer.code is RowCode.NO_TOKENS for answer in found if isinstance(answer, RowError))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": ["a", "b"]}, "leave labels out"),
        ({"labels": ["a", "b"], "hypothesis": "of {}"}, "leave labels out"),
        ({"explain": {"every": 1}}, "leave explain out"),
        ({"long_texts": "stride"}, "leave long_texts stride out"),
    ],
)
def test_pairs_are_for_a_models_own_labels(options: dict[str, Any], message: str) -> None:
    corpus = {"file": "file-1", "pair_column": "claim"}
    with pytest.raises(
        ValidationError, match=f"pair_column is for a model's own labels: {message}"
    ):
        kinds.parse({"kind": "classify", "model": "/m", "corpus": corpus, "classify": options})


@pytest.mark.parametrize("kind", ["embed", "generate", "text2text", "pipeline"])
def test_other_kinds_have_no_pairs(kind: str) -> None:
    corpus = {"file": "file-1", "pair_column": "claim"}
    with pytest.raises(ValidationError, match="pair_column"):
        kinds.parse({"kind": kind, "model": "/m", "corpus": corpus})


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("words", [(3, 4_000), (4_000, 3), (4_000, 4_000), (40, 3_000)])
def test_texts_of_any_length_are_truncated_as_by_plain_transformers(
    tmp_path: Path, side: str, words: tuple[int, int]
) -> None:
    folder = tiny_classifier(tmp_path / "model", labels=LABELS)
    tokenizers: Any = AutoTokenizer
    tokenizer = tokenizers.from_pretrained(folder)
    tokenizer.truncation_side = side
    pair = PairedText(*(" ".join(random_words(count)) for count in words))
    window_tokenizer = WindowTokenizer(
        tokenizer, max_tokens=MAX_TOKENS, options=kinds.ClassifyOptions()
    )
    [tokenized] = window_tokenizer.tokenize([pair])
    again = tokenizers.from_pretrained(folder)
    again.truncation_side = side
    expected = again(*pair, truncation=True, max_length=MAX_TOKENS)["input_ids"]
    assert tokenized.windows[0].ids == expected
    assert tokenized.truncated
    bounded = window_tokenizer._bounded(pair)
    assert len(window_tokenizer._backend.encode(*bounded).overflowing) < 60


def random_words(count: int) -> list[str]:
    return random.Random(count).choices(WORDS, k=count)
