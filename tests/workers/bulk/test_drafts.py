"""Shards hold every row once and in order, for any batches and any row that planning resumes at."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from jobs.corpora.schemas import CORPUS_SCHEMA, SHARD_SCHEMA
from jobs.decisions.chunking import ChunkLimits
from jobs.ledger.plans import PlanProgress
from workers.bulk.planner import ShardDraft, shard_drafts

BIG = 10**9
batch_sizes = st.lists(st.integers(0, 12), max_size=12)
limits = st.builds(
    ChunkLimits,
    chunk_rows=st.integers(1, 9),
    chunk_bytes=st.integers(1, 60),
    shard_rows=st.integers(1, 25),
    shard_bytes=st.integers(1, 2_000),
)


def batches(sizes: list[int], *, widths: tuple[int, ...] = (0, 3, 11)) -> Iterator[pa.RecordBatch]:
    """Batches of rows whose ``line`` is the row number plus one; some texts are missing."""
    place = 0
    lengths = itertools.cycle(widths)
    for size in sizes:
        rows = []
        for row in range(place, place + size):
            length = next(lengths)
            text = "é" * length if length else None
            code = None if length else "bad_json"
            rows.append({"line": row + 1, "text": text, "error_code": code})
        place += size
        yield pa.RecordBatch.from_pylist(rows, schema=CORPUS_SCHEMA)


def assert_follow(made: list[ShardDraft], *, first_row: int, index: int, rows: int) -> None:
    """The drafts are numbered from ``index`` and hold the rest of the corpus exactly."""
    for number, draft in enumerate(made, start=index):
        assert draft.index == number
        assert draft.first_row == first_row
        assert draft.table.schema == SHARD_SCHEMA
        places = range(first_row, first_row + draft.table.num_rows)
        assert draft.table["row"].to_pylist() == list(places)
        assert draft.table["line"].to_pylist() == [place + 1 for place in places]
        assert sum(draft.chunk_rows) == draft.table.num_rows > 0
        first_row = places.stop
    assert first_row == rows


@given(batch_sizes, limits)
def test_every_row_is_in_one_shard_and_the_chunks_add_up(
    sizes: list[int], limits: ChunkLimits
) -> None:
    made = list(shard_drafts(batches(sizes), limits=limits, progress=PlanProgress(0, 0)))
    assert_follow(made, first_row=0, index=0, rows=sum(sizes))


@given(batch_sizes, limits)
def test_no_shard_exceeds_its_limit_of_rows(sizes: list[int], limits: ChunkLimits) -> None:
    for draft in shard_drafts(batches(sizes), limits=limits, progress=PlanProgress(0, 0)):
        assert draft.table.num_rows <= limits.max_rows_of_shard(draft.index)


@given(batch_sizes, st.integers(1, 2_000))
def test_no_shard_exceeds_its_limit_of_bytes_by_more_than_one_batch(
    sizes: list[int], shard_bytes: int
) -> None:
    limits = ChunkLimits(chunk_rows=5, chunk_bytes=BIG, shard_rows=BIG, shard_bytes=shard_bytes)
    largest = max((batch.nbytes + 8 * batch.num_rows for batch in batches(sizes)), default=0)
    for draft in shard_drafts(batches(sizes), limits=limits, progress=PlanProgress(0, 0)):
        assert draft.table.nbytes <= shard_bytes + largest


@given(batch_sizes, batch_sizes, limits, st.data())
def test_a_second_planner_resumes_where_the_first_stopped(
    sizes: list[int], others: list[int], limits: ChunkLimits, data: st.DataObject
) -> None:
    """Even if its batches have other sizes, as after a change of settings."""
    total = sum(sizes)
    made = list(shard_drafts(batches(sizes), limits=limits, progress=PlanProgress(0, 0)))
    kept = made[: data.draw(st.integers(0, len(made)))]
    rows = sum(draft.table.num_rows for draft in kept)
    again = _same_total(others, total)
    progress = PlanProgress(shards=len(kept), rows=rows)
    rest = list(shard_drafts(batches(again), limits=limits, progress=progress))
    assert_follow(rest, first_row=rows, index=len(kept), rows=total)


def test_an_empty_batch_at_the_end_makes_no_empty_shard() -> None:
    limits = ChunkLimits(chunk_rows=5, chunk_bytes=BIG, shard_rows=5, shard_bytes=BIG)
    made = list(shard_drafts(batches([5, 0]), limits=limits, progress=PlanProgress(0, 0)))
    assert [draft.table.num_rows for draft in made] == [5]


def _same_total(sizes: list[int], total: int) -> list[int]:
    """The sizes, cut or extended so that they add up to the total."""
    cut: list[int] = []
    for size in sizes:
        cut.append(min(size, total - sum(cut)))
    return [*cut, total - sum(cut)]
