from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.errors import ModelFailure
from jobs.kinds import ClassifyOptions
from tests.support.tiny_models import tiny_classifier
from workers.inference import model_loader
from workers.inference.batching.tokenization import BYTES_PER_SLICE, WindowTokenizer, slices


@given(st.lists(st.text(max_size=50), max_size=50), st.integers(1, 20))
def test_every_text_is_in_one_slice_and_the_longest_come_first(
    texts: list[str], budget: int
) -> None:
    order = [index for group in slices(texts, budget=budget) for index in group]
    sizes = [len(texts[index].encode()) for index in order]
    assert sorted(order) == list(range(len(texts)))
    assert sizes == sorted(sizes, reverse=True)


@given(st.lists(st.text(max_size=50), max_size=50), st.integers(1, 20))
def test_a_slice_is_full_before_its_last_text(texts: list[str], budget: int) -> None:
    for group in slices(texts, budget=budget):
        before_last = sum(len(texts[index].encode()) for index in group[:-1])
        assert before_last < budget * BYTES_PER_SLICE


def test_a_window_that_holds_no_text_is_refused(tmp_path: Path) -> None:
    tokenizer = model_loader.tokenizer(tiny_classifier(tmp_path / "model"))
    with pytest.raises(ModelFailure):
        WindowTokenizer(tokenizer, max_tokens=2, options=ClassifyOptions())


def test_without_any_limit_a_window_has_512_tokens(tmp_path: Path) -> None:
    tokenizer = model_loader.tokenizer(tiny_classifier(tmp_path / "model"))
    window_tokenizer = WindowTokenizer(tokenizer, max_tokens=None, options=ClassifyOptions())
    [tokenized] = window_tokenizer.tokenize(["the team " * 1_000])
    assert (tokenized.tokens, tokenized.truncated) == (512, True)
