"""Where rows are cut into chunks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jobs.decisions.chunking import FIRST_SHARD_ROWS, ChunkLimits, cut

sizes = st.lists(st.integers(0, 50), max_size=200)


@given(sizes, st.integers(1, 20), st.integers(1, 100))
def test_every_row_is_in_exactly_one_chunk_and_no_chunk_is_over_its_limits(
    sizes: list[int], rows: int, size: int
) -> None:
    chunks = cut(sizes, max_rows=rows, max_bytes=size)
    assert sum(chunks) == len(sizes)
    first = 0
    for count in chunks:
        assert 0 < count <= rows
        assert count == 1 or sum(sizes[first : first + count]) <= size
        first += count


@given(sizes, st.integers(1, 20), st.integers(1, 100))
def test_no_chunk_could_have_taken_the_next_row_as_well(
    sizes: list[int], rows: int, size: int
) -> None:
    first = 0
    for count in cut(sizes, max_rows=rows, max_bytes=size)[:-1]:
        assert count == rows or sum(sizes[first : first + count + 1]) > size
        first += count


def test_a_row_larger_than_a_chunk_stands_alone() -> None:
    assert cut([10, 10, 999, 10, 10], max_rows=100, max_bytes=20) == [2, 1, 2]


def test_no_rows_are_no_chunks() -> None:
    assert cut([], max_rows=10, max_bytes=10) == []


@given(st.integers(0, 1_000_000), st.integers(1, 10**6))
def test_shards_double_from_a_small_first_one_up_to_their_limit(index: int, limit: int) -> None:
    limits = ChunkLimits(chunk_rows=1, chunk_bytes=1, shard_rows=limit, shard_bytes=1)
    assert limits.max_rows_of_shard(0) == min(FIRST_SHARD_ROWS, limit)
    here, next_ = limits.max_rows_of_shard(index), limits.max_rows_of_shard(index + 1)
    assert 0 < here <= next_ <= min(limit, 2 * here)
