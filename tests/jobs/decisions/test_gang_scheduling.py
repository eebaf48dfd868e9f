"""Gang scheduling: a job gets all the hosts it needs or none, in order, and no job starves."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.decisions.gang_scheduling import (
    Formation,
    GangPlacement,
    GangRequest,
    Holding,
    place_gangs,
    preempt,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
WEIGHTS = {"a": 1.0, "b": 2.0, "c": 0.5}
HOSTS = [f"host-{index}" for index in range(8)]


def request(name: str = "job", **fields: Any) -> GangRequest:
    """A job of one machine, created at ``minute``; ``machines`` sets both bounds."""
    minute, machines = fields.pop("minute", 0), fields.pop("machines", 1)
    project = fields.get("project_id", "a")
    defaults = {
        "job_id": name,
        "project_id": project,
        "weight": WEIGHTS[project],
        "priority": 0,
        "created_at": START + timedelta(minutes=minute),
        "min_hosts": machines,
        "max_hosts": machines,
    }
    return GangRequest(**(defaults | fields))


def holding(name: str = "run", *, minute: int = 0, **fields: Any) -> Holding:
    """A run on one machine."""
    defaults: dict[str, Any] = {
        "run_id": name,
        "project_id": "a",
        "priority": 0,
        "machines": 1,
        "created_at": START + timedelta(minutes=minute),
        "stopping": False,
    }
    return Holding(**(defaults | fields))


def formed(*requests: GangRequest, idle: int, **fields: Any) -> Formation:
    busy = fields.pop("busy", 0)
    holdings = fields.pop("holdings", [])
    return place_gangs(requests, idle=HOSTS[:idle], alive=idle + busy, holdings=holdings)


def served(formation: Formation) -> list[tuple[str, int]]:
    return [(gang.job_id, len(gang.hosts)) for gang in formation.gangs]


@st.composite
def request_lists(draw: st.DrawFn) -> list[GangRequest]:
    requests = []
    for index in range(draw(st.integers(0, 7))):
        min_hosts = draw(st.integers(1, 5))
        requests.append(
            request(
                f"job_{index}",
                project_id=draw(st.sampled_from(sorted(WEIGHTS))),
                priority=draw(st.integers(-1, 1)),
                minute=draw(st.integers(0, 3)),
                min_hosts=min_hosts,
                max_hosts=min_hosts + draw(st.integers(0, 2)),
            )
        )
    return requests


holding_lists = st.lists(
    st.builds(
        holding,
        project_id=st.sampled_from(sorted(WEIGHTS)),
        priority=st.integers(-2, 2),
        machines=st.integers(1, 4),
        minute=st.integers(0, 5),
        stopping=st.booleans(),
    ),
    max_size=6,
).map(lambda all_: [dataclasses.replace(h, run_id=f"run_{i}") for i, h in enumerate(all_)])


@given(request_lists(), st.integers(0, 8), holding_lists)
def test_no_host_goes_to_two_gangs_and_every_gang_is_whole(
    requests: list[GangRequest], idle: int, holdings: list[Holding]
) -> None:
    busy = sum(run.machines for run in holdings)
    formation = formed(*requests, idle=idle, busy=busy, holdings=holdings)
    reserved = [host for gang in formation.gangs for host in gang.hosts]
    assert len(set(reserved)) == len(reserved)
    assert set(reserved) <= set(HOSTS[:idle])
    by_job = {request.job_id: request for request in requests}
    for gang in formation.gangs:
        assert by_job[gang.job_id].min_hosts <= len(gang.hosts) <= by_job[gang.job_id].max_hosts
    assert len({gang.job_id for gang in formation.gangs}) == len(formation.gangs)


@given(request_lists(), st.integers(0, 8), holding_lists)
def test_either_a_job_blocks_or_every_job_that_fits_the_pool_is_served(
    requests: list[GangRequest], idle: int, holdings: list[Holding]
) -> None:
    alive = idle + sum(run.machines for run in holdings)
    formation = formed(*requests, idle=idle, busy=alive - idle, holdings=holdings)
    served_jobs = {gang.job_id for gang in formation.gangs}
    left = idle - sum(len(gang.hosts) for gang in formation.gangs)
    if formation.blocked is None:
        assert served_jobs == {each.job_id for each in requests if each.min_hosts <= alive}
    else:
        assert left < formation.blocked.min_hosts <= alive
        assert formation.blocked.job_id not in served_jobs


@given(request_lists(), st.integers(0, 8), holding_lists)
def test_no_job_of_a_lower_priority_overtakes_the_job_that_blocks(
    requests: list[GangRequest], idle: int, holdings: list[Holding]
) -> None:
    busy = sum(run.machines for run in holdings)
    formation = formed(*requests, idle=idle, busy=busy, holdings=holdings)
    by_job = {request.job_id: request for request in requests}
    for gang in formation.gangs:
        if formation.blocked is not None:
            assert by_job[gang.job_id].priority >= formation.blocked.priority


@given(request_lists(), st.integers(0, 8), st.randoms(use_true_random=False))
def test_the_order_in_which_wishes_are_listed_does_not_matter(
    requests: list[GangRequest], idle: int, random: Any
) -> None:
    shuffled = list(requests)
    random.shuffle(shuffled)
    assert formed(*shuffled, idle=idle, busy=2) == formed(*requests, idle=idle, busy=2)


@given(request_lists(), st.integers(1, 8))
def test_every_job_that_fits_the_pool_is_served_once_those_before_it_have_ended(
    requests: list[GangRequest], pool: int
) -> None:
    waiting = list(requests)
    for _ in range(len(requests) + 1):
        done = {gang.job_id for gang in formed(*waiting, idle=pool).gangs}
        waiting = [each for each in waiting if each.job_id not in done]
    assert all(each.min_hosts > pool for each in waiting)


def test_a_big_job_at_the_head_is_not_overtaken_by_small_ones() -> None:
    big = request("big", machines=3)
    small = [request(f"small {index}", minute=1) for index in range(5)]
    formation = formed(big, *small, idle=2, busy=2)
    assert served(formation) == []
    assert formation.blocked == big


def test_a_big_job_gets_its_hosts_as_soon_as_they_are_there() -> None:
    formation = formed(request("big", machines=3), request("small", minute=1), idle=4)
    assert served(formation) == [("big", 3), ("small", 1)]


def test_a_job_larger_than_the_pool_blocks_no_other() -> None:
    formation = formed(request("huge", machines=5), request("small", minute=1), idle=2, busy=2)
    assert served(formation) == [("small", 1)]
    assert formation.blocked is None


def test_a_higher_priority_goes_first_though_it_came_later() -> None:
    formation = formed(request("old"), request("urgent", minute=9, priority=1), idle=1)
    assert served(formation) == [("urgent", 1)]


def test_a_project_that_holds_less_goes_first_though_it_came_later() -> None:
    holdings = [holding(project_id="a", machines=1)]
    first, second = request("ours"), request("theirs", project_id="b", minute=9)
    formation = formed(first, second, idle=1, busy=1, holdings=holdings)
    assert served(formation) == [("theirs", 1)]


def test_hosts_that_a_project_just_got_count_for_the_next_gang() -> None:
    ours = [request(f"ours {index}") for index in range(3)]
    theirs = [request(f"theirs {index}", project_id="b", minute=9) for index in range(3)]
    order = [job_id for job_id, _ in served(formed(*ours, *theirs, idle=3))]
    assert order == ["ours 0", "theirs 0", "theirs 1"]  # theirs has weight 2


@pytest.mark.parametrize(("idle", "taken"), [(1, None), (2, 2), (3, 3), (4, 4), (6, 4)])
def test_an_elastic_job_takes_all_hosts_up_to_its_maximum(idle: int, taken: int | None) -> None:
    formation = formed(request("job", min_hosts=2, max_hosts=4), idle=idle, busy=8)
    assert served(formation) == ([("job", taken)] if taken else [])


def test_a_gang_takes_hosts_in_their_order() -> None:
    assert formed(request("job", machines=2), idle=3).gangs == (
        GangPlacement("job", tuple(HOSTS[:2])),
    )


# Preemption.


@given(st.integers(1, 6), st.integers(-1, 1), st.integers(0, 5), holding_lists)
def test_only_runs_of_lower_priority_are_preempted_and_only_if_that_is_enough(
    machines: int, priority: int, idle: int, holdings: list[Holding]
) -> None:
    victims = preempt(request(machines=machines, priority=priority), idle=idle, holdings=holdings)
    runs = {run.run_id: run for run in holdings}
    assert all(runs[name].priority < priority and not runs[name].stopping for name in victims)
    if victims:
        ending = sum(run.machines for run in holdings if run.stopping)
        assert idle + ending + sum(runs[name].machines for name in victims) >= machines


@given(st.integers(1, 6), st.integers(-1, 2), st.integers(0, 5), holding_lists)
def test_no_run_is_preempted_in_vain(
    machines: int, priority: int, idle: int, holdings: list[Holding]
) -> None:
    victims = preempt(request(machines=machines, priority=priority), idle=idle, holdings=holdings)
    runs = {run.run_id: run for run in holdings}
    ending = sum(run.machines for run in holdings if run.stopping)
    for fewer in combinations(victims, max(0, len(victims) - 1)):
        freed = sum(runs[name].machines for name in fewer)
        if victims:
            assert idle + ending + freed < machines


@given(st.integers(1, 6), st.integers(-1, 2), st.integers(0, 5), holding_lists)
def test_a_job_that_can_be_helped_is_helped(
    machines: int, priority: int, idle: int, holdings: list[Holding]
) -> None:
    victims = preempt(request(machines=machines, priority=priority), idle=idle, holdings=holdings)
    ending = sum(run.machines for run in holdings if run.stopping)
    lower = [run for run in holdings if run.priority < priority and not run.stopping]
    missing = machines - idle - ending
    can_be_helped = 0 < missing <= sum(run.machines for run in lower)
    assert bool(victims) == can_be_helped


@pytest.mark.parametrize(
    ("machines", "priority", "idle", "victims"),
    [
        (1, 2, 0, ["low young"]),  # the lowest, of those the youngest
        (2, 2, 0, ["low young", "low old"]),
        (3, 2, 0, ["low young", "low old", "middle"]),
        (4, 2, 1, ["low young", "low old", "middle"]),
        (4, 2, 0, []),  # there are only three: no run stops for nothing
        (1, 1, 0, ["low young"]),
        (3, 1, 0, []),  # a run of the same priority is not preempted
        (1, 0, 0, []),
        (1, 2, 1, []),  # nothing is missing
    ],
)
def test_the_lowest_and_youngest_runs_are_preempted_first(
    machines: int, priority: int, idle: int, victims: list[str]
) -> None:
    holdings = [
        holding("middle", priority=1, minute=9),
        holding("low old", minute=1),
        holding("low young", minute=2),
    ]
    waiting = request(machines=machines, priority=priority)
    assert preempt(waiting, idle=idle, holdings=holdings) == victims


def test_hosts_of_runs_that_stop_already_are_waited_for() -> None:
    holdings = [holding("stopping", stopping=True), holding("going on")]
    assert preempt(request(priority=1), idle=0, holdings=holdings) == []
    assert preempt(request(priority=1, machines=2), idle=0, holdings=holdings) == ["going on"]


def test_a_small_run_is_spared_when_a_large_one_must_end_anyway() -> None:
    holdings = [holding("small", minute=9), holding("large", machines=2)]
    assert preempt(request(priority=1, machines=2), idle=0, holdings=holdings) == ["large"]


def test_an_elastic_job_preempts_only_for_the_hosts_it_needs() -> None:
    holdings = [holding("one", minute=1), holding("two", minute=2)]
    waiting = request(priority=1, min_hosts=1, max_hosts=2)
    assert preempt(waiting, idle=0, holdings=holdings) == ["two"]
