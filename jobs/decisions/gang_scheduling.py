"""Gang scheduling: which training jobs get hosts now, all that they need or none.

The order within a pool is: highest priority, then the project that holds the smallest weighted
share of hosts, then oldest. The first job that lacks hosts blocks all jobs behind it, so that small
jobs do not starve a large one. A job that needs more hosts than the pool has alive blocks no other:
it might wait for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class GangRequest:
    """A job that waits for a gang."""

    job_id: str
    project_id: str
    weight: float
    priority: int
    created_at: datetime
    min_hosts: int
    max_hosts: int


@dataclass(frozen=True)
class Holding:
    """A run that holds hosts."""

    run_id: str
    project_id: str
    priority: int
    machines: int
    created_at: datetime
    stopping: bool  # it was asked to end; its hosts will be free


@dataclass(frozen=True)
class GangPlacement:
    """A job and the hosts that it gets, in the order of their ranks."""

    job_id: str
    hosts: tuple[str, ...]


@dataclass(frozen=True)
class Formation:
    """What to do in one pool."""

    gangs: tuple[GangPlacement, ...]
    blocked: GangRequest | None  # the first job that lacks hosts


def place_gangs(
    requests: Iterable[GangRequest], *, idle: Sequence[str], alive: int, holdings: Iterable[Holding]
) -> Formation:
    """Gangs for the waiting jobs, in order, until one lacks hosts.

    ``alive`` counts idle and busy hosts.
    """
    hosts_by_project = _hosts_by_project(holdings)
    free = list(idle)
    waiting = [request for request in requests if request.min_hosts <= alive]
    gangs: list[GangPlacement] = []
    while waiting:
        first = min(waiting, key=lambda request: _order(request, hosts_by_project))
        if len(free) < first.min_hosts:
            return Formation(gangs=tuple(gangs), blocked=first)
        taken, free = free[: first.max_hosts], free[first.max_hosts :]
        gangs.append(GangPlacement(job_id=first.job_id, hosts=tuple(taken)))
        hosts_by_project[first.project_id] = hosts_by_project.get(first.project_id, 0) + len(taken)
        waiting.remove(first)
    return Formation(gangs=tuple(gangs), blocked=None)


def ahead(
    job_id: str, requests: Iterable[GangRequest], *, alive: int, holdings: Iterable[Holding]
) -> list[str]:
    """Jobs that get hosts before this one, each as many as it needs at least, in order."""
    hosts_by_project = _hosts_by_project(holdings)
    waiting = [each for each in requests if each.min_hosts <= alive or each.job_id == job_id]
    first: list[str] = []
    while waiting:
        request = min(waiting, key=lambda request: _order(request, hosts_by_project))
        if request.job_id == job_id:
            break
        first.append(request.job_id)
        hosts_by_project[request.project_id] = (
            hosts_by_project.get(request.project_id, 0) + request.min_hosts
        )
        waiting.remove(request)
    return first


def preempt(request: GangRequest, *, idle: int, holdings: Iterable[Holding]) -> list[str]:
    """Runs to preempt for ``request``; none if that would not give it all the hosts it needs.

    Only runs of lower priority are preempted: the lowest first, and of those the youngest, which
    loses least. A run is spared if the others free enough hosts without it.
    """
    running = list(holdings)
    missing = request.min_hosts - idle - sum(run.machines for run in running if run.stopping)
    victims: list[Holding] = []
    lower = [run for run in running if run.priority < request.priority and not run.stopping]
    for run in sorted(lower, key=lambda run: (run.priority, -run.created_at.timestamp())):
        if missing <= 0:
            break
        victims.append(run)
        missing -= run.machines
    if missing > 0:
        return []
    for run in reversed(victims.copy()):
        if missing + run.machines <= 0:
            victims.remove(run)
            missing += run.machines
    return [run.run_id for run in victims]


def _hosts_by_project(holdings: Iterable[Holding]) -> dict[str, int]:
    hosts: dict[str, int] = {}
    for holding in holdings:
        hosts[holding.project_id] = hosts.get(holding.project_id, 0) + holding.machines
    return hosts


def _order(
    request: GangRequest, hosts_by_project: Mapping[str, int]
) -> tuple[int, float, datetime, str]:
    share = hosts_by_project.get(request.project_id, 0) / request.weight
    return -request.priority, share, request.created_at, request.job_id
