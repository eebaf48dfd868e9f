"""Scores of texts and of pairs, against plain transformers, one row at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from jobs.errors import ModelFailure
from jobs.kinds import ScoreOptions
from jobs.row_codes import RowCode
from jobs.settings import Settings
from tests.support.tiny_models import MAX_TOKENS, Family, tiny_classifier
from tests.workers.inference.builders import no_beat, some_texts
from workers.inference import engine
from workers.inference.batching.forward import RowError
from workers.inference.batching.tokenization import PairedText, RowText
from workers.inference.tasks.scorer import Score

NEAR = 1e-5
FAMILIES: tuple[Family, ...] = ("bert", "distilbert", "roberta", "gpt2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return one_output(tmp_path_factory.mktemp("models") / "model")


def one_output(folder: Path, *, family: Family = "bert") -> Path:
    return tiny_classifier(folder, labels=("LABEL_0",), family=family)


def rows_of(count: int, *, longest: int = 30) -> list[RowText]:
    """As many single texts as pairs."""
    texts = some_texts(3 * count, longest=longest)
    pairs = zip(texts[count : 2 * count], texts[2 * count :], strict=True)
    return [*texts[:count], *(PairedText(*both) for both in pairs)]


def plain(folder: Path, rows: Sequence[RowText]) -> list[float]:
    """What the transformers library outputs for each row alone."""
    auto: Any = AutoModelForSequenceClassification
    tokenizers: Any = AutoTokenizer
    model, tokenizer = auto.from_pretrained(folder).eval(), tokenizers.from_pretrained(folder)
    given = {"truncation": True, "max_length": MAX_TOKENS, "return_tensors": "pt"}
    with torch.inference_mode():
        return [
            model(**tokenizer(*((row,) if isinstance(row, str) else row), **given)).logits.item()
            for row in rows
        ]


def answers(
    folder: Path, rows: Sequence[RowText], *, batch_tokens: int = 0, **options: Any
) -> dict[int, Any]:
    settings = Settings(worker_threads=1, batch_tokens=batch_tokens)
    loaded = engine.load(folder, ScoreOptions(**options), settings=settings)
    return dict(loaded.answer(dict(enumerate(rows)), beat=no_beat))


def scores(folder: Path, rows: Sequence[RowText], **given: Any) -> list[float]:
    """The answers, none of which may be an error."""
    found = answers(folder, rows, **given)
    assert all(isinstance(answer, Score) for answer in found.values())
    return [found[row].value for row in range(len(rows))]


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_the_logits_of_plain_transformers(family: Family, tmp_path: Path) -> None:
    folder = one_output(tmp_path / "model", family=family)
    rows = rows_of(30)
    assert scores(folder, rows) == pytest.approx(plain(folder, rows), abs=NEAR)


@pytest.mark.parametrize("batch_tokens", [16, 256, 8_192])
def test_a_score_does_not_depend_on_its_batch(folder: Path, batch_tokens: int) -> None:
    rows = rows_of(40)
    found = scores(folder, rows, batch_tokens=batch_tokens)
    assert found == pytest.approx(plain(folder, rows), abs=NEAR)
    alone = [scores(folder, [row], batch_tokens=batch_tokens)[0] for row in rows[::10]]
    assert found[::10] == pytest.approx(alone, abs=NEAR)


def test_scores_of_different_rows_differ(folder: Path) -> None:
    found = scores(folder, rows_of(20))
    assert max(found) - min(found) > 100 * NEAR


def test_a_sigmoid_is_applied_on_request(folder: Path) -> None:
    rows = rows_of(10)
    expected = torch.tensor(plain(folder, rows), dtype=torch.float64).sigmoid().tolist()
    assert scores(folder, rows, activation="sigmoid") == pytest.approx(expected, abs=NEAR)


def test_the_order_of_a_pair_matters(folder: Path) -> None:
    first, second = scores(folder, [PairedText("the team", "won"), PairedText("won", "the team")])
    assert abs(first - second) > NEAR


def test_equal_rows_have_the_same_score(folder: Path) -> None:
    pair = PairedText("the team", "won")
    found = scores(folder, [pair, "the team", pair])
    assert found[0] == found[2]
    assert found[0] != found[1]


def test_a_long_row_is_cut_as_plain_transformers_cuts_it(folder: Path) -> None:
    rows: list[RowText] = ["the team " * 200, PairedText("the team " * 90, "won " * 100)]
    found = answers(folder, rows)
    assert [each.truncated for each in found.values()] == [True, True]
    assert [each.tokens for each in found.values()] == [MAX_TOKENS, MAX_TOKENS]
    expected = plain(folder, rows)
    assert [each.value for each in found.values()] == pytest.approx(expected, abs=NEAR)


def test_a_text_read_in_windows_has_the_mean_of_their_scores(folder: Path) -> None:
    room = MAX_TOKENS - 2
    words = ["the", "team", "won", "the", "match"]
    text = " ".join(words[place % len(words)] for place in range(2 * room))
    found = answers(folder, [text], long_texts="stride", stride=0)[0]
    assert not found.truncated
    tokenizers: Any = AutoTokenizer
    tokenizer = tokenizers.from_pretrained(folder)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    windows = [tokenizer.decode(ids[at : at + room]) for at in range(0, len(ids), room)]
    expected = plain(folder, windows)
    assert len(expected) > 1
    assert found.value == pytest.approx(sum(expected) / len(expected), abs=NEAR)


def test_a_row_without_tokens_is_an_error_and_its_neighbours_are_unharmed(folder: Path) -> None:
    found = answers(folder, ["\x01", PairedText("the team", "\x01"), "the team"])
    assert [isinstance(each, RowError) for each in found.values()] == [True, True, False]
    assert found[0].code is found[1].code is RowCode.NO_TOKENS
    assert found[2].value == pytest.approx(plain(folder, ["the team"])[0], abs=NEAR)


def test_a_logit_that_is_not_finite_is_an_error_row(tmp_path: Path) -> None:
    folder = one_output(tmp_path / "model")
    auto: Any = AutoModelForSequenceClassification
    model = auto.from_pretrained(folder)
    with torch.no_grad():
        model.classifier.bias.fill_(float("inf"))
    model.save_pretrained(folder)
    found = answers(folder, ["the team"])[0]
    assert isinstance(found, RowError)
    assert found.code is RowCode.NOT_FINITE


def test_a_head_with_several_outputs_is_refused(tmp_path: Path) -> None:
    folder = tiny_classifier(tmp_path / "model", labels=("a", "b", "c"))
    with pytest.raises(ModelFailure, match="has 3: classify gives every row its label") as refusal:
        answers(folder, ["the team"])
    assert refusal.value.code == "model_several_outputs"
