from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.inference.batching.batcher import (
    MAX_PADDED_BUDGETS,
    MAX_PADDING,
    SMALL_PADDING,
    BatchLayout,
    cut,
)

LENGTHS = st.lists(st.integers(1, 600), max_size=200)
BUDGETS = st.integers(1, 5_000)
LAYOUTS = st.sampled_from(BatchLayout)


@given(LENGTHS, BUDGETS, LAYOUTS)
def test_every_index_is_in_exactly_one_batch(
    lengths: list[int], budget: int, layout: BatchLayout
) -> None:
    batches = list(cut(lengths, budget=budget, layout=layout))
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))


@given(LENGTHS, BUDGETS)
def test_no_batch_is_over_the_budget_unless_it_is_one_row(lengths: list[int], budget: int) -> None:
    for batch in cut(lengths, budget=budget):
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget


@given(LENGTHS, BUDGETS)
def test_packed_rows_are_within_the_budget_and_not_far_from_it_padded(
    lengths: list[int], budget: int
) -> None:
    for batch in cut(lengths, budget=budget, layout=BatchLayout.PACKED):
        sizes = [lengths[index] for index in batch]
        assert len(batch) == 1 or sum(sizes) <= budget
        assert len(batch) == 1 or len(sizes) * max(sizes) <= MAX_PADDED_BUDGETS * budget


@given(LENGTHS, BUDGETS, LAYOUTS)
def test_the_longest_rows_come_first(lengths: list[int], budget: int, layout: BatchLayout) -> None:
    batches = cut(lengths, budget=budget, layout=layout)
    order = [lengths[index] for batch in batches for index in batch]
    assert order == sorted(lengths, reverse=True)


@given(LENGTHS, BUDGETS)
def test_no_row_is_filled_up_by_much(lengths: list[int], budget: int) -> None:
    for batch in cut(lengths, budget=budget):
        longest = max(lengths[index] for index in batch)
        padding = longest - min(lengths[index] for index in batch)
        assert padding <= max(SMALL_PADDING, MAX_PADDING * longest)


@given(LENGTHS, BUDGETS)
def test_without_padding_a_batch_has_one_length(lengths: list[int], budget: int) -> None:
    for batch in cut(lengths, budget=budget, layout=BatchLayout.EQUAL_LENGTH):
        assert len({lengths[index] for index in batch}) == 1


@given(LENGTHS, BUDGETS)
def test_the_same_lengths_are_cut_the_same_way(lengths: list[int], budget: int) -> None:
    assert list(cut(lengths, budget=budget)) == list(cut(list(lengths), budget=budget))


def test_rows_of_one_length_fill_the_budget() -> None:
    assert [len(batch) for batch in cut([10] * 25, budget=100)] == [10, 10, 5]


def test_packed_rows_of_two_lengths_fill_the_budget() -> None:
    assert [
        len(batch) for batch in cut([10] * 8 + [5] * 8, budget=100, layout=BatchLayout.PACKED)
    ] == [12, 4]


@pytest.mark.parametrize("layout", BatchLayout)
def test_no_rows_make_no_batch(layout: BatchLayout) -> None:
    assert list(cut([], budget=100, layout=layout)) == []
