"""Counts of result quality: unknown tokens and near ties."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from tests.support.tiny_models import Family, tiny_classifier, tiny_encoder
from tests.workers.inference.batching.test_chunk_boundaries import nearly_tied
from tests.workers.inference.builders import predictions, some_texts
from tests.workers.inference.embedders import embeddings
from workers.inference.batching.tokenization import unknown_token
from workers.inference.tasks.classifier import Prediction

KNOWN, HALF, NONE = "the team won", "the team 體育", "體育 財經"


def counts(found: list[Prediction]) -> list[tuple[int, int]]:
    return [(each.unknown, each.tokens) for each in found]


def test_unknown_tokens_of_every_text_are_counted(tmp_path: Path) -> None:
    folder = tiny_classifier(tmp_path / "model")
    assert counts(predictions(folder, [KNOWN, HALF, NONE])) == [(0, 5), (2, 6), (4, 6)]


def test_windows_and_hypotheses_count_as_often_as_they_are_read(tmp_path: Path) -> None:
    folder = tiny_classifier(tmp_path / "nli", labels=("entailment", "neutral", "contradiction"))
    found = predictions(folder, [NONE], labels=("the team", "a phone"), hypothesis="{}")
    assert found[0].unknown == 8
    long = " ".join(["體"] * 20)
    strided = predictions(folder, [long], long_texts="stride", stride=0, max_tokens=12)
    assert counts(strided) == [(20, 24)]


@pytest.mark.parametrize("family", ["roberta", "gpt2"])
def test_a_tokenizer_that_spells_any_text_by_its_bytes_knows_everything(
    tmp_path: Path, family: Family
) -> None:
    folder = tiny_classifier(tmp_path / "model", family=family)
    assert [each.unknown for each in predictions(folder, [NONE, "<unk>"])] == [0, 0]


def test_an_embedding_counts_them_too(tmp_path: Path) -> None:
    folder = tiny_encoder(tmp_path / "model")
    assert [each.unknown for each in embeddings(folder, [KNOWN, HALF, NONE])] == [0, 2, 4]


def test_the_unknown_token_of_a_unigram_tokenizer_is_the_one_it_names() -> None:
    build: Any = PreTrainedTokenizerFast
    backend = Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0)], unk_id=0))
    assert unknown_token(build(tokenizer_object=backend, unk_token="<unk>")) == 0
    assert unknown_token(build(tokenizer_object=backend)) is None


def test_labels_that_rounding_could_change_are_near_ties_and_others_are_not(
    tmp_path: Path,
) -> None:
    texts = some_texts(20)
    tied = predictions(nearly_tied(tmp_path / "tied", apart=1e-7), texts)
    clear = predictions(tiny_classifier(tmp_path / "clear"), texts)
    assert {each.near_tie for each in tied} == {True}
    assert {each.near_tie for each in clear} == {False}
