"""Rate and remaining time of bulk jobs, over simulated workers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.decisions import throughput
from jobs.decisions.throughput import Work

WINDOW, LATELY, STALE = (
    each.total_seconds() for each in (throughput.WINDOW, throughput.LATELY, throughput.STALE)
)
REPORT = 5.0
GAP = 0.1
"""Seconds of a worker between two chunks."""


@dataclass(frozen=True)
class Span:
    """A chunk as the ledger knows it: its rows' worth of work from ``begun`` to ``reported``."""

    rows: float
    begun: float
    reported: float
    done: bool


def overlap(begin: float, end: float, *, since: float) -> float:
    return max(0.0, end - max(begin, since))


def summed(spans: Sequence[Span], *, now: float) -> Work:
    """The sums as ``jobs.queries.work_sums`` makes them; a test of it compares the two."""
    rows = seconds = busy = under_way = unreported = 0.0
    for each in spans:
        if each.done and each.reported <= now - WINDOW:
            continue
        length = each.reported - each.begun
        within = overlap(each.begun, each.reported, since=now - WINDOW)
        rows += each.rows * (within / length if length > 0 else 1.0)
        seconds += within
        until = each.reported if each.done else min(now, each.reported + STALE)
        busy += overlap(each.begun, until, since=now - LATELY)
        if not each.done:
            under_way += each.rows
            unreported += until - each.reported
    age = now - min((each.begun for each in spans), default=now)
    return Work(rows, seconds, busy, age, under_way, unreported)


@dataclass(frozen=True)
class Worker:
    """Computes chunks one after the other, with reports in between."""

    speed: float  # rows per second
    begins: float = 0.0
    dies: float = float("inf")
    offset: float = 0.0  # its first chunk is this much shorter, so that workers end apart

    def spans(self, *, now: float, chunk: float) -> Iterator[Span]:
        begun = self.begins
        for number in itertools.count():
            size = chunk - self.offset if number == 0 else chunk
            end = begun + size / self.speed
            if end <= min(now, self.dies):
                yield Span(size, begun, end, done=True)
                begun = end + GAP
                continue
            if begun <= now < self.dies:
                reported = begun + (now - begun) // REPORT * REPORT
                yield Span((reported - begun) * self.speed, begun, reported, done=False)
            return


def look(workers: Sequence[Worker], *, now: float, chunk: float) -> Work:
    return summed([s for w in workers for s in w.spans(now=now, chunk=chunk)], now=now)


def eta(workers: Sequence[Worker], *, now: float, chunk: float, total: int) -> float | None:
    spans = [s for w in workers for s in w.spans(now=now, chunk=chunk)]
    done = sum(each.rows for each in spans if each.done)
    return summed(spans, now=now).eta_seconds(rows_left=int(total - done))


@settings(max_examples=60)
@given(
    count=st.integers(1, 8),
    speed=st.floats(1, 200),
    chunk_seconds=st.floats(0.5, 300),
    begin=st.floats(8, 60),
)
def test_the_remaining_time_runs_down_evenly_under_steady_work(
    count: int, speed: float, chunk_seconds: float, begin: float
) -> None:
    chunk = speed * chunk_seconds
    workers = [Worker(speed, offset=chunk * place / count / 2) for place in range(count)]
    total = int(10_000 * speed * count)
    moments = [begin + 1.7 * step for step in range(25)]
    found = [eta(workers, now=now, chunk=chunk, total=total) for now in moments]
    truth = [total / (speed * count) - now for now in moments]
    for true, known in zip(truth, found, strict=True):
        assert known is not None
        assert known == pytest.approx(true, rel=0.3)  # gaps between very small chunks count
    for before, after in itertools.pairwise(found):
        assert before is not None
        assert after is not None
        assert after < before * 1.03


@pytest.mark.parametrize("chunk_seconds", [2, 20, 60, 200])
def test_no_estimate_jumps_within_a_chunk_or_at_its_end(chunk_seconds: float) -> None:
    workers = [Worker(10)]
    found = [
        eta(workers, now=5.5 + second, chunk=10 * chunk_seconds, total=30_000)
        for second in range(400)
    ]
    assert None not in found
    changes = [after - before for before, after in itertools.pairwise(found)]  # type: ignore[operator]
    assert max(changes) < 0.02 * 3_000


def test_a_worker_that_died_is_out_of_the_rate_within_seconds() -> None:
    both = [Worker(10), Worker(10, dies=300.0)]
    before = look(both, now=299.0, chunk=100)
    after = look(both, now=300.0 + LATELY, chunk=100)
    assert before.rate == pytest.approx(20, rel=0.1)
    assert after.rate == pytest.approx(10, rel=0.1)


def test_a_worker_that_joins_is_in_the_rate_within_seconds() -> None:
    both = [Worker(10), Worker(10, begins=300.0)]
    assert look(both, now=300.0, chunk=100).rate == pytest.approx(10, rel=0.1)
    assert look(both, now=300.0 + LATELY, chunk=100).rate == pytest.approx(20, rel=0.1)


def test_no_rate_is_made_up_when_no_worker_computes() -> None:
    dead = [Worker(10, dies=100.0)]
    found = look(dead, now=100.0 + LATELY + 1, chunk=100)
    assert found.rate is None
    assert found.eta_seconds(rows_left=10) is None
    assert Work().rate is None


def test_a_worker_that_reports_nothing_counts_for_a_while_only() -> None:
    silent = [Span(rows=50, begun=0.0, reported=5.0, done=False)]
    assert summed(silent, now=10.0).workers == pytest.approx(1)
    assert summed(silent, now=5.0 + STALE + LATELY).workers == 0


def test_a_first_report_gives_a_first_estimate() -> None:
    found = summed([Span(rows=50, begun=0.0, reported=5.0, done=False)], now=6.0)
    assert found.rate == pytest.approx(10)
    assert found.eta_seconds(rows_left=100) == pytest.approx(4)
