"""How many slots the work of a pool wants."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.decisions import demand
from jobs.decisions.demand import CHUNK_SECONDS, JobWork, SlotDemand

NOW = datetime(2026, 1, 1, tzinfo=UTC)
WITHIN = timedelta(minutes=10)


def work(chunks: int, seconds: float | None = 10.0, *, due: float | None = None) -> JobWork:
    """Chunks of so long, that must be done ``due`` seconds from now."""
    return JobWork(chunks, seconds, None if due is None else NOW + timedelta(seconds=due))


def slots(*works: JobWork) -> SlotDemand:
    return demand.slots(works, now=NOW, within=WITHIN)


@pytest.mark.parametrize(
    ("works", "wanted", "for_deadlines"),
    [
        ((), 0, 0),
        ((work(0),), 0, 0),
        ((work(1),), 1, 0),
        ((work(60),), 1, 0),  # 600 s of work within 600 s
        ((work(61),), 2, 0),
        ((work(60, due=100),), 6, 6),
        ((work(60, due=3600),), 1, 1),
        ((work(60, due=5),), 60, 60),  # less than a chunk takes: all at once
        ((work(60, due=-5),), 60, 60),  # too late already
        ((work(60, due=100), work(600)), 11, 6),  # 600 s + 6,000 s within 600 s
        ((work(10, due=100), work(10, due=200)), 1, 1),
        ((work(10, due=100), work(30, due=200)), 2, 2),
        ((work(2, 1000.0, due=600),), 2, 2),  # no more slots than chunks
    ],
)
def test_slots_are_the_most_that_any_deadline_needs(
    works: tuple[JobWork, ...], wanted: int, for_deadlines: int
) -> None:
    found = slots(*works)
    assert (found.wanted, found.for_deadlines) == (wanted, for_deadlines)


def test_a_job_that_has_ended_no_chunk_counts_as_the_others_of_its_pool() -> None:
    assert slots(work(10, 30.0), work(20, None)).chunk_seconds == 30.0
    assert slots(work(20, None)).chunk_seconds == CHUNK_SECONDS


WORKS = st.lists(
    st.builds(
        work,
        st.integers(0, 500),
        st.none() | st.floats(0.0, 100.0),
        due=st.none() | st.floats(-100.0, 10_000.0),
    ),
    max_size=8,
)


@given(WORKS)
def test_with_the_slots_that_are_wanted_every_deadline_is_met_that_can_be(
    works: list[JobWork],
) -> None:
    found = slots(*works)
    assert found.for_deadlines <= found.wanted <= found.chunks
    assert (found.wanted > 0) == (found.chunks > 0)
    known = [each for each in works if each.deadline and each.chunk_seconds is not None]
    for last in known:
        assert last.deadline is not None
        earlier = [each for each in known if each.deadline and each.deadline <= last.deadline]
        seconds = sum(each.chunks * (each.chunk_seconds or 0.0) for each in earlier)
        until = (last.deadline - NOW).total_seconds()
        chunks = sum(each.chunks for each in earlier)
        assert found.for_deadlines >= chunks or found.for_deadlines * until >= seconds * 0.999


@given(WORKS, st.integers(1, 100))
def test_more_work_never_wants_fewer_slots(works: list[JobWork], chunks: int) -> None:
    more = work(chunks, 10.0, due=50.0)
    known = [each for each in works if each.chunk_seconds is not None]
    assert slots(*known, more).wanted >= slots(*known).wanted
