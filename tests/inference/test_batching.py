from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.inference.batching import MAX_PADDING, SMALL_PADDING, cut

LENGTHS = st.lists(st.integers(1, 600), max_size=200)
BUDGETS = st.integers(1, 5_000)


@given(LENGTHS, BUDGETS)
def test_every_index_is_in_exactly_one_batch(lengths: list[int], budget: int) -> None:
    batches = list(cut(lengths, budget=budget))
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))


@given(LENGTHS, BUDGETS)
def test_no_batch_is_over_the_budget_unless_it_is_one_row(lengths: list[int], budget: int) -> None:
    for batch in cut(lengths, budget=budget):
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget


@given(LENGTHS, BUDGETS)
def test_the_longest_rows_come_first(lengths: list[int], budget: int) -> None:
    order = [lengths[index] for batch in cut(lengths, budget=budget) for index in batch]
    assert order == sorted(lengths, reverse=True)


@given(LENGTHS, BUDGETS)
def test_no_row_is_filled_up_by_much(lengths: list[int], budget: int) -> None:
    for batch in cut(lengths, budget=budget):
        longest = max(lengths[index] for index in batch)
        fill = longest - min(lengths[index] for index in batch)
        assert fill <= max(SMALL_PADDING, MAX_PADDING * longest)


@given(LENGTHS, BUDGETS)
def test_without_padding_a_batch_has_one_length(lengths: list[int], budget: int) -> None:
    for batch in cut(lengths, budget=budget, padding=False):
        assert len({lengths[index] for index in batch}) == 1


@given(LENGTHS, BUDGETS)
def test_the_same_lengths_are_cut_the_same_way(lengths: list[int], budget: int) -> None:
    assert list(cut(lengths, budget=budget)) == list(cut(list(lengths), budget=budget))


def test_rows_of_one_length_fill_the_budget() -> None:
    assert [len(batch) for batch in cut([10] * 25, budget=100)] == [10, 10, 5]


@pytest.mark.parametrize("padding", [True, False])
def test_no_rows_make_no_batch(*, padding: bool) -> None:
    assert list(cut([], budget=100, padding=padding)) == []
