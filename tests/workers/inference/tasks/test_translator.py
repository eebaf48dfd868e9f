"""Encoder-decoders of real architectures, against transformers' own ``generate``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from jobs.errors import ModelFailure
from jobs.kinds import Text2TextOptions
from jobs.row_codes import RowCode
from jobs.settings import Settings
from tests.support.tiny_writers import LANGUAGES, MAX_TOKENS, tiny_translator
from tests.workers.inference.builders import no_beat, some_texts
from workers.inference import engine
from workers.inference.batching.forward import RowError
from workers.inference.decoding.text_generation import GeneratedText

STEPS = 12


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_translator(tmp_path_factory.mktemp("models") / "t5")


def answers(
    folder: Path, texts: Mapping[int, str], *, budget: int = 0, **options: Any
) -> dict[int, GeneratedText | RowError]:
    settings = Settings(worker_threads=1, batch_tokens=budget)
    text2text = Text2TextOptions(**{"max_new_tokens": STEPS, **options})
    found = engine.load(folder, text2text, settings=settings).answer(texts, beat=no_beat)
    return {row: each for row, each in found.items() if isinstance(each, GeneratedText | RowError)}


def outputs(folder: Path, texts: Mapping[int, str], **options: Any) -> dict[int, str]:
    found = answers(folder, texts, **options)
    return {row: each.output for row, each in found.items() if isinstance(each, GeneratedText)}


def plain(folder: Path, text: str, **options: Any) -> str:
    tokenizers: Any = AutoTokenizer
    models: Any = AutoModelForSeq2SeqLM
    tokenizer, model = tokenizers.from_pretrained(folder), models.from_pretrained(folder).eval()
    inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=MAX_TOKENS)
    with torch.inference_mode():
        ids = model.generate(**inputs, max_new_tokens=STEPS, do_sample=False, **options)
    return str(tokenizer.decode(ids[0, 1:], skip_special_tokens=True))


def numbered(count: int) -> dict[int, str]:
    return dict(enumerate(some_texts(count, longest=8)))


@pytest.mark.parametrize("family", ["t5", "bart"])
@pytest.mark.parametrize("beams", [None, 3])
def test_the_texts_are_those_of_plain_transformers(
    family: str, beams: int | None, tmp_path: Path
) -> None:
    folder = tiny_translator(tmp_path / "model", family=family)
    texts = numbered(15)
    expected = {row: plain(folder, text, num_beams=beams or 1) for row, text in texts.items()}
    assert outputs(folder, texts, beams=beams) == expected


@pytest.mark.parametrize("budget", [1, 20, 1_000])
def test_no_text_depends_on_how_the_rows_are_cut(t5: Path, budget: int) -> None:
    texts = numbered(20)
    alone = {row: outputs(t5, {row: text})[row] for row, text in texts.items()}
    assert outputs(t5, texts, budget=budget) == alone


def test_a_prompt_stands_before_every_text(t5: Path) -> None:
    found = outputs(t5, {0: "the team"}, prompt="translate: ")
    assert found[0] == plain(t5, "translate: the team")


def test_the_target_language_is_the_first_token_of_the_output(t5: Path) -> None:
    forced = AutoTokenizer.from_pretrained(t5).convert_tokens_to_ids(LANGUAGES[0])
    texts = numbered(5)
    found = outputs(t5, texts, target_language=LANGUAGES[0])
    assert found == {
        row: plain(t5, text, forced_bos_token_id=forced) for row, text in texts.items()
    }


@pytest.mark.parametrize("option", ["target_language", "source_language"])
def test_an_unknown_language_is_refused_with_those_that_are_known(t5: Path, option: str) -> None:
    with pytest.raises(ModelFailure) as caught:
        engine.load(t5, Text2TextOptions.model_validate({option: "xx_XX"}), settings=Settings())
    assert caught.value.code == "language_unknown"
    assert LANGUAGES[0] in caught.value.message


def test_a_tokenizer_without_source_languages_is_not_given_one(t5: Path) -> None:
    with pytest.raises(ModelFailure, match="knows no source language"):
        answers(t5, {0: "x"}, source_language=LANGUAGES[0])


def test_a_long_text_is_cut_and_marked(t5: Path) -> None:
    long = "the team won " * 40
    found = answers(t5, {0: long, 1: "short"}, max_tokens=64)
    first, second = found[0], found[1]
    assert isinstance(first, GeneratedText)
    assert isinstance(second, GeneratedText)
    assert (first.truncated, first.tokens) == (True, 64)
    assert second.truncated is False
    assert answers(t5, {0: long})[0].tokens == MAX_TOKENS  # type: ignore[union-attr]


def test_a_text_without_tokens_is_an_error_row(t5: Path) -> None:
    found = answers(t5, {0: "", 1: "x"}, prompt="translate: ")
    assert isinstance(found[0], RowError)
    assert found[0].code is RowCode.NO_TOKENS
    assert isinstance(found[1], GeneratedText)
