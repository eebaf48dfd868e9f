"""Validation rows: an exact count of each label, uniformly drawn, the same in every process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.decisions import validation_split
from jobs.decisions.validation_split import Selector, validation_rows

labels = st.sampled_from(["sports", "体育", "a|b", "", "World"])
rows = st.lists(labels, max_size=80)
shares = st.floats(0, 1, exclude_min=True, exclude_max=True)
seeds = st.integers(0, 2**31 - 1)


def chosen(corpus: list[str], *, share: float, seed: int) -> list[bool]:
    selector = Selector(Counter(corpus), share=share, seed=seed)
    return [selector.take(label) for label in corpus]


@pytest.mark.parametrize(
    ("count", "share", "expected"),
    [
        (0, 0.5, 0),
        (1, 0.99, 0),
        (2, 0.01, 1),
        (2, 0.99, 1),
        (3, 0.5, 2),
        (10, 0.1, 1),
        (14, 0.1, 1),
        (15, 0.1, 2),
        (1000, 0.1, 100),
        (1000, 0.9999, 999),
    ],
)
def test_a_label_gives_its_share_and_keeps_something_on_either_side(
    count: int, share: float, expected: int
) -> None:
    assert validation_rows({"x": count}, share=share) == {"x": expected}


@given(st.integers(0, 10**9), shares)
def test_the_share_is_met_within_half_a_row_or_by_one_row_on_a_side(
    count: int, share: float
) -> None:
    taken = validation_rows({"x": count}, share=share)["x"]
    if count < 2:
        assert taken == 0
    else:
        assert 1 <= taken <= count - 1
        assert abs(taken - count * share) <= 0.5 + 1e-6 or taken in (1, count - 1)


@given(rows, shares, seeds)
def test_exactly_the_given_number_of_rows_of_each_label_is_taken(
    corpus: list[str], share: float, seed: int
) -> None:
    taken = chosen(corpus, share=share, seed=seed)
    counts = Counter(label for label, take in zip(corpus, taken, strict=True) if take)
    assert dict(counts) == {
        label: count
        for label, count in validation_rows(Counter(corpus), share=share).items()
        if count
    }


@given(rows, shares, seeds)
def test_the_same_corpus_and_seed_make_the_same_choice(
    corpus: list[str], share: float, seed: int
) -> None:
    assert chosen(corpus, share=share, seed=seed) == chosen(corpus, share=share, seed=seed)


@given(rows, rows, shares, seeds)
def test_rows_of_other_labels_do_not_change_which_rows_of_a_label_are_taken(
    corpus: list[str], others: list[str], share: float, seed: int
) -> None:
    mixed = [label for label in others if label != "sports"] + corpus
    alone = [label for label in corpus if label == "sports"]

    def of_sports(corpus: list[str]) -> list[bool]:
        taken = chosen(corpus, share=share, seed=seed)
        return [take for label, take in zip(corpus, taken, strict=True) if label == "sports"]

    assert of_sports(mixed) == of_sports(alone)


def test_every_choice_is_about_as_likely_as_any_other() -> None:
    tries = 6_000
    choices = Counter(tuple(chosen(["x"] * 4, share=0.5, seed=seed)) for seed in range(tries))
    assert len(choices) == len(list(combinations(range(4), 2))) == 6
    # within five standard deviations
    assert all(abs(count - tries / 6) < 150 for count in choices.values())


def test_labels_are_drawn_independently() -> None:
    selector = Selector({"a": 500, "b": 500}, share=0.5, seed=0)
    pairs = Counter((selector.take("a"), selector.take("b")) for _ in range(500))
    assert all(count > 75 for count in pairs.values())
    assert len(pairs) == 4


def test_the_choice_does_not_depend_on_the_hash_seed_of_the_process() -> None:
    code = (
        "from jobs.decisions.validation_split import Selector\n"
        "one = Selector({'体育': 60, 'b': 4}, share=0.3, seed=7)\n"
        "print(''.join(str(int(one.take('体育'))) for _ in range(60)))"
    )
    ran = [
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert ran[0] == ran[1]
    assert ran[0].count("1") == 18


def test_a_row_that_was_not_counted_is_an_error() -> None:
    selector = Selector({"a": 1}, share=0.5, seed=0)
    selector.take("a")
    with pytest.raises(ValueError, match="more rows of 'a'"):
        selector.take("a")
    with pytest.raises(KeyError):
        selector.take("b")


def test_rows_without_a_single_label_are_one_stratum() -> None:
    counts = {"a": 3, "b": 2}
    assert validation_split.strata(counts, rows=5, multi_label=False) == counts
    assert validation_split.strata(counts, rows=4, multi_label=True) == {"": 4}
    assert validation_split.strata(None, rows=9, multi_label=False) == {"": 9}
