"""Fair share: priority, then the smallest weighted share, then age."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from jobs.decisions.fair_share import Candidate, share_out

START = datetime(2026, 1, 1, tzinfo=UTC)
WEIGHTS = {"a": 1.0, "b": 2.0, "c": 0.5}


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
            in_flight=draw(st.integers(0, 6)),
            available=draw(st.integers(0, 9)),
        )
        for index in range(count)
    ]


@given(candidate_lists(), st.integers(0, 50))
def test_grants_never_exceed_what_is_free_or_available(
    candidates: list[Candidate], free: int
) -> None:
    granted = share_out(candidates, free=free)
    available = {job.job_id: job.available for job in candidates}
    assert sum(granted.values()) == min(free, sum(available.values()))
    assert all(0 < count <= available[job_id] for job_id, count in granted.items())


@given(candidate_lists(), st.integers(0, 50))
def test_a_lower_priority_gets_nothing_before_a_higher_one_is_served(
    candidates: list[Candidate], free: int
) -> None:
    granted = share_out(candidates, free=free)
    served = [job.priority for job in candidates if job.job_id in granted]
    for job in candidates:
        if served and job.priority > min(served):
            assert granted.get(job.job_id, 0) == job.available


@given(candidate_lists(), st.integers(0, 50))
def test_of_one_project_and_priority_the_oldest_goes_first(
    candidates: list[Candidate], free: int
) -> None:
    granted = share_out(candidates, free=free)
    queues: dict[tuple[str, int], list[Candidate]] = defaultdict(list)
    for job in sorted(candidates, key=lambda job: (job.created_at, job.job_id)):
        queues[job.project_id, job.priority].append(job)
    for queue in queues.values():
        for older, younger in pairwise(queue):
            if younger.job_id in granted:
                assert granted.get(older.job_id, 0) == older.available


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
        _candidate(project, in_flight=count, available=1_000)
        for project, count in in_flight.items()
    ]
    granted = share_out(candidates, free=free)
    served = [job for job in candidates if granted.get(job.job_id)]
    for one in served:  # a grant never lifts a project above another by more than that grant
        before_its_last = (_load(one, granted) - 1) / one.weight
        assert all(before_its_last <= _load(other, granted) / other.weight for other in candidates)


def test_what_a_project_got_at_a_higher_priority_counts_at_a_lower_one() -> None:
    urgent = _candidate("a", available=6, priority=1)
    candidates = [urgent, _candidate("a", job_id="a0"), _candidate("c", job_id="c0", weight=1.0)]
    granted = share_out(candidates, free=12)
    assert granted == {urgent.job_id: 6, "c0": 6}


def test_chunks_in_flight_count_even_if_no_more_are_available() -> None:
    candidates = [
        _candidate("a", job_id="busy", in_flight=10, available=0),
        _candidate("a", job_id="more"),
        _candidate("c", job_id="idle", weight=1.0),
    ]
    assert share_out(candidates, free=10) == {"idle": 10}


def _load(job: Candidate, granted: dict[str, int]) -> int:
    return job.in_flight + granted.get(job.job_id, 0)


def _candidate(project: str, **fields: object) -> Candidate:
    defaults: Iterable[tuple[str, object]] = {
        "job_id": f"job_{project}",
        "project_id": project,
        "weight": WEIGHTS[project],
        "priority": 0,
        "created_at": START,
        "in_flight": 0,
        "available": 100,
    }.items()
    return Candidate(**{**dict(defaults), **fields})  # type: ignore[arg-type]
