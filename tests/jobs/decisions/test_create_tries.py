"""Which create a try without a key repeats."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.decisions.create_tries import Made, Try, repeated

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(second: float) -> datetime:
    return START + timedelta(seconds=second)


def made(name: str, arrivals: dict[int, float], *, named: float | None = None) -> Made:
    named_at = None if named is None else at(named)
    return Made(name, {count: at(second) for count, second in arrivals.items()}, named_at)


A, B = made("a", {0: 0}), made("b", {0: 1})
A_REPEATED, B_REPEATED = made("a", {0: 0, 1: 5}), made("b", {0: 1, 1: 5})
A_RETRIED_ONLY = made("a", {1: 5})

CASES = {
    "nothing was made": ([], (1, 5), None),
    "its first try made it": ([A], (1, 5), "a"),
    "an earlier retry made it": ([made("a", {1: 1})], (2, 5), "a"),
    "a first try after another is a new create": ([A], (0, 5), None),
    "a retry with the count of another is of another create": ([A_REPEATED], (1, 6), None),
    "of two creates the older is repeated first": ([A, B], (1, 5), "a"),
    "the other one is repeated by the other retry": ([A_REPEATED, B], (1, 6), "b"),
    "the second retry follows the first": ([A, B_REPEATED], (2, 6), "b"),
    "a first try that its retry overtook": ([A_RETRIED_ONLY], (0, 4), "a"),
    "a first try after another create's retry": ([A_RETRIED_ONLY], (0, 6), None),
    "a retry that its successor overtook": ([made("a", {0: 0, 2: 5})], (1, 4), "a"),
    "a retry that was there before this first try": ([made("a", {0: 6})], (1, 5), None),
    "its client has an answer": ([made("a", {0: 0}, named=4)], (1, 5), None),
    "its client had no answer yet": ([made("a", {0: 0, 2: 5}, named=6)], (1, 4), "a"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_try_belongs_to_the_create_that_it_repeats(name: str) -> None:
    known, (count, arrived), expected = CASES[name]
    found = repeated(known, Try(count, at(arrived)))
    assert (found.id if found else None) == expected


@given(st.permutations(range(8)))
def test_tries_of_one_create_make_one_in_whatever_order_they_are_served(order: list[int]) -> None:
    known: list[Made] = []
    for count in order:
        found = repeated(known, Try(count, at(count)))
        before = {} if found is None else dict(found.arrivals)
        known = [Made("a", {**before, count: at(count)}, None)]
        assert found is not None or count == order[0]


@given(st.integers(1, 6), st.data())
def test_as_many_creates_as_were_meant_are_made(creates: int, data: st.DataObject) -> None:
    """Each has a first try and one retry; of some the first try never arrives."""
    arrive = data.draw(st.lists(st.booleans(), min_size=creates, max_size=creates))
    known = [made(str(n), {0: n}) for n, there in enumerate(arrive) if there]
    for n in data.draw(st.permutations(range(creates))):
        attempt = Try(1, at(100 + n))
        found = repeated(known, attempt)
        if found is None:
            known.append(Made(f"retried {n}", {1: attempt.arrived}, None))
        else:
            whole = Made(found.id, {**found.arrivals, 1: attempt.arrived}, None)
            known = [whole if each is found else each for each in known]
    assert len(known) == creates
