"""Fair share: priority, then the smallest weighted share, then fair turns between jobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.decisions.fair_share import Candidate, is_out_of_turn, share_out

START = datetime(2026, 1, 1, tzinfo=UTC)
WEIGHTS = {"a": 1.0, "b": 2.0, "c": 0.5}


def _candidate(project: str, **fields: object) -> Candidate:
    defaults: Iterable[tuple[str, object]] = {
        "job_id": f"job_{project}",
        "project_id": project,
        "weight": WEIGHTS[project],
        "priority": 0,
        "created_at": START,
        "leased": 0,
        "sent": 0,
        "available": 100,
    }.items()
    return Candidate(**{**dict(defaults), **fields})  # type: ignore[arg-type]


@st.composite
def candidate_lists(
    draw: st.DrawFn, *, priorities: st.SearchStrategy[int] | None = None
) -> list[Candidate]:
    count = draw(st.integers(0, 8))
    return [
        Candidate(
            job_id=f"job_{index}",
            project_id=(project := draw(st.sampled_from(sorted(WEIGHTS)))),
            weight=WEIGHTS[project],
            priority=draw(priorities or st.integers(-2, 2)),
            created_at=START + timedelta(minutes=draw(st.integers(0, 3))),
            leased=draw(st.integers(0, 3)),
            sent=draw(st.integers(0, 3)),
            available=draw(st.integers(0, 9)),
            served=draw(st.integers(0, 3)),
        )
        for index in range(count)
    ]


@given(candidate_lists(), st.integers(0, 50))
def test_grants_never_exceed_what_is_free_or_available(
    candidates: list[Candidate], free: int
) -> None:
    granted = Counter(share_out(candidates, free=free))
    available = {job.job_id: job.available for job in candidates}
    assert sum(granted.values()) == min(free, sum(available.values()))
    assert all(0 < count <= available[job_id] for job_id, count in granted.items())


@given(candidate_lists(), st.integers(0, 50))
def test_a_lower_priority_gets_nothing_before_a_higher_one_is_served(
    candidates: list[Candidate], free: int
) -> None:
    granted = Counter(share_out(candidates, free=free))
    served = [job.priority for job in candidates if job.job_id in granted]
    for job in candidates:
        if served and job.priority > min(served):
            assert granted.get(job.job_id, 0) == job.available


@given(candidate_lists(), st.integers(0, 50))
def test_of_one_project_and_priority_no_job_gets_ahead_of_another(
    candidates: list[Candidate], free: int
) -> None:
    """A grant never lifts a job above another with chunks left by more than that grant."""
    granted = Counter(share_out(candidates, free=free))
    for one, other in permutations(candidates, 2):
        alike = (one.project_id, one.priority) == (other.project_id, other.priority)
        if alike and granted[one.job_id] and granted[other.job_id] < other.available:
            assert _load(one, granted) - 1 <= _load(other, granted)


@given(candidate_lists(), st.integers(0, 50))
def test_a_queue_as_it_was_shared_out_is_in_turn(candidates: list[Candidate], size: int) -> None:
    fresh = [replace(job, sent=0) for job in candidates]
    sent = Counter(share_out(fresh, free=size))
    queued = [
        replace(job, sent=sent[job.job_id], available=job.available - sent[job.job_id])
        for job in fresh
    ]
    assert not is_out_of_turn(queued, queued=sent.total())


@given(candidate_lists(), st.integers(0, 50), st.randoms(use_true_random=False))
def test_the_order_of_the_candidates_does_not_matter(
    candidates: list[Candidate], free: int, random: object
) -> None:
    shuffled = list(candidates)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert share_out(shuffled, free=free) == share_out(candidates, free=free)


@given(
    st.dictionaries(st.sampled_from(sorted(WEIGHTS)), st.integers(0, 6), min_size=2),
    st.integers(20, 200),
)
def test_projects_with_enough_work_differ_by_at_most_one_grant_of_their_share(
    in_flight: dict[str, int], free: int
) -> None:
    candidates = [
        _candidate(project, leased=count, available=1_000) for project, count in in_flight.items()
    ]
    granted = Counter(share_out(candidates, free=free))
    served = [job for job in candidates if granted.get(job.job_id)]
    for one in served:  # a grant never lifts a project above another by more than that grant
        before_its_last = (_load(one, granted) - 1) / one.weight
        assert all(before_its_last <= _load(other, granted) / other.weight for other in candidates)


def test_what_a_project_got_at_a_higher_priority_counts_at_a_lower_one() -> None:
    urgent = _candidate("a", available=6, priority=1)
    candidates = [urgent, _candidate("a", job_id="a0"), _candidate("c", job_id="c0", weight=1.0)]
    granted = Counter(share_out(candidates, free=12))
    assert granted == {urgent.job_id: 6, "c0": 6}


def test_chunks_in_flight_count_even_if_no_more_are_available() -> None:
    candidates = [
        _candidate("a", job_id="busy", leased=4, sent=6, available=0),
        _candidate("a", job_id="more"),
        _candidate("c", job_id="idle", weight=1.0),
    ]
    assert share_out(candidates, free=10) == ["idle"] * 10


def test_two_jobs_of_a_project_take_turns_and_a_small_one_is_soon_done() -> None:
    large, small = _candidate("a", job_id="large"), _candidate("a", job_id="small", available=2)
    assert share_out([large, small], free=6) == ["large", "small", "large", "small", *["large"] * 2]


def test_of_jobs_with_equally_many_in_flight_the_one_that_was_served_least_goes_first() -> None:
    jobs = [_candidate("a", job_id=name, served=n) for name, n in (("x", 2), ("y", 1), ("z", 2))]
    assert share_out(jobs, free=4) == ["y", "x", "z", "y"]


QUEUE_FULL = _candidate("a", job_id="large", leased=2, sent=8)


@pytest.mark.parametrize(
    ("candidates", "out_of_turn"),
    [
        ([QUEUE_FULL], False),
        ([QUEUE_FULL, _candidate("a", job_id="small", available=1)], True),
        ([QUEUE_FULL, _candidate("b", available=1)], True),  # of another project
        ([QUEUE_FULL, _candidate("a", job_id="small", available=0)], False),
        ([QUEUE_FULL, _candidate("a", job_id="small", sent=1)], False),  # it has a place
        ([QUEUE_FULL, _candidate("a", job_id="low", priority=-1)], False),
        ([QUEUE_FULL, _candidate("a", job_id="urgent", priority=1, leased=5)], True),
        ([QUEUE_FULL, _candidate("a", job_id="urgent", priority=1, available=0)], False),
        ([_candidate("a", job_id="new"), _candidate("a", job_id="newer")], False),  # empty queue
        (  # as many jobs as places: each keeps its own
            [
                *[_candidate("a", job_id=f"{n}", sent=1, served=1) for n in range(8)],
                _candidate("a", job_id="new"),
            ],
            False,
        ),
    ],
)
def test_a_queue_is_out_of_turn_if_a_job_goes_before_what_is_in_it(
    candidates: list[Candidate], *, out_of_turn: bool
) -> None:
    queued = sum(job.sent for job in candidates)
    assert is_out_of_turn(candidates, queued=queued) is out_of_turn


def _load(job: Candidate, granted: Mapping[str, int]) -> int:
    return job.in_flight + granted.get(job.job_id, 0)
