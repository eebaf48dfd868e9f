"""An epoch has every row once, for any number of ranks."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from workers.inference.batching import batcher
from workers.training import sampler
from workers.training.sampler import RankShare

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=400)


def order(lengths: list[int], *, seed: int = 0, epoch: int = 0, batch_rows: int = 4) -> list[int]:
    rows = sampler.epoch_order(
        np.array(lengths, dtype=np.int32), seed=seed, epoch=epoch, batch_rows=batch_rows
    )
    return [int(each) for each in rows]


def shares(lengths: list[int], *, ranks: int, budget: int) -> list[RankShare]:
    rows = list(range(len(lengths)))
    return [
        sampler.share(rows, lengths, rank=rank, ranks=ranks, budget=budget) for rank in range(ranks)
    ]


def rows_of(share: RankShare) -> list[int]:
    return [row for batch in share.batches for row in batch]


@given(lengths=LENGTHS, seed=st.integers(0, 9), batch_rows=st.integers(1, 9))
def test_every_row_comes_once_in_an_epoch(lengths: list[int], seed: int, batch_rows: int) -> None:
    rows = order(lengths, seed=seed, batch_rows=batch_rows)
    assert sorted(rows) == list(range(len(lengths)))


@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=40),
    ranks=st.integers(1, 5),
    budget=st.integers(1, 200),
)
def test_the_ranks_share_the_rows_of_a_step_evenly_and_without_overlap(
    lengths: list[int], ranks: int, budget: int
) -> None:
    counted = [
        rows_of(share) for share in shares(lengths, ranks=ranks, budget=budget) if share.counts
    ]
    assert sorted(row for rows in counted for row in rows) == list(range(len(lengths)))
    assert max(map(len, counted)) - min(map(len, counted)) <= 1


@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=40), budget=st.integers(1, 200))
def test_a_batch_with_its_padding_is_within_the_budget(lengths: list[int], budget: int) -> None:
    [share] = shares(lengths, ranks=1, budget=budget)
    for batch in share.batches:
        assert len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= budget


def test_a_rank_without_a_row_takes_a_placeholder_that_does_not_count() -> None:
    idle = shares([5, 7], ranks=3, budget=100)[2]
    assert not idle.counts
    assert len(idle.batches) == 1


def test_an_epoch_depends_only_on_the_seed_and_its_number() -> None:
    lengths = [1 + place % 17 for place in range(300)]
    assert order(lengths, seed=1, epoch=2) == order(lengths, seed=1, epoch=2)
    assert order(lengths, seed=1, epoch=2) != order(lengths, seed=1, epoch=3)
    assert order(lengths, seed=1, epoch=2) != order(lengths, seed=2, epoch=2)


def test_rows_of_a_step_have_similar_lengths_and_steps_are_not_ordered_by_length() -> None:
    chance = np.random.default_rng(0)
    lengths = [int(each) for each in chance.integers(1, 100, size=1_600)]
    rows = order(lengths, batch_rows=16)
    steps = [[lengths[row] for row in rows[start : start + 16]] for start in range(0, 1_600, 16)]
    spread = np.mean([max(step) - min(step) for step in steps])
    assert spread < 15  # a step has an eighth of its block's range; random steps would have 88
    settings = [float(np.mean(step)) for step in steps]
    assert abs(float(np.corrcoef(settings[:-1], settings[1:])[0, 1])) < 0.3


def test_the_rows_of_the_smaller_last_step_are_random_ones() -> None:
    lengths = [1 + place % 50 for place in range(103)]
    last = {
        tuple(sorted(lengths[row] for row in order(lengths, epoch=each)[100:])) for each in range(9)
    }
    assert len(last) > 5


def test_the_sums_of_lengths_differ_by_no_more_than_the_longest_row() -> None:
    lengths = [int(each) for each in np.random.default_rng(1).integers(1, 100, size=64)]
    sums = [
        sum(lengths[row] for row in rows_of(share))
        for share in shares(lengths, ranks=4, budget=10_000)
    ]
    assert max(sums) - min(sums) <= max(lengths)


def test_a_batch_that_was_cut_is_not_cut_again() -> None:
    lengths = [int(each) for each in np.random.default_rng(2).integers(1, 100, size=64)]
    for batch in batcher.cut(lengths, budget=500):
        again = list(batcher.cut([lengths[row] for row in batch], budget=500))
        assert len(again) == 1
