"""Which training jobs get hosts now: all that they need, or none.

Within a pool the order is: highest priority, then the project that holds the smallest weighted
share of hosts, then oldest. The first job whose hosts are not there yet keeps those behind it
waiting, so that small jobs do not starve a large one. One that asks for more hosts than the pool
has alive blocks nobody: it could wait for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Wish:
    """A job that wants a gang."""

    job_id: str
    project_id: str
    weight: float
    priority: int
    created_at: datetime
    least: int  # machines
    most: int


@dataclass(frozen=True)
class Holding:
    """A run that holds hosts."""

    run_id: str
    project_id: str
    priority: int
    machines: int
    created_at: datetime
    stopping: bool  # it was asked to end, and its hosts will be free


@dataclass(frozen=True)
class Gang:
    """A job and the hosts that it gets, rank by rank."""

    job_id: str
    hosts: tuple[str, ...]


@dataclass(frozen=True)
class Formation:
    """What to do in one pool."""

    gangs: tuple[Gang, ...]
    blocked: Wish | None  # the first job whose hosts are not there yet


def form(
    wishes: Iterable[Wish], *, idle: Sequence[str], alive: int, holdings: Iterable[Holding]
) -> Formation:
    """Hosts for as many jobs as there are, in order. ``alive`` counts idle and busy hosts."""
    held: dict[str, int] = {}
    for holding in holdings:
        held[holding.project_id] = held.get(holding.project_id, 0) + holding.machines
    free = list(idle)
    waiting = [wish for wish in wishes if wish.least <= alive]
    gangs: list[Gang] = []
    while waiting:
        first = min(waiting, key=lambda wish: _turn(wish, held))
        if len(free) < first.least:
            return Formation(gangs=tuple(gangs), blocked=first)
        taken, free = free[: first.most], free[first.most :]
        gangs.append(Gang(job_id=first.job_id, hosts=tuple(taken)))
        held[first.project_id] = held.get(first.project_id, 0) + len(taken)
        waiting.remove(first)
    return Formation(gangs=tuple(gangs), blocked=None)


def preempt(wish: Wish, *, idle: int, holdings: Iterable[Holding]) -> list[str]:
    """Runs that must make way for ``wish``; none if that would not give it all its hosts.

    Only runs of lower priority: the lowest first, of those the youngest, which loses least. One
    that turns out not to be needed, since a larger one must end anyhow, is spared.
    """
    running = list(holdings)
    missing = wish.least - idle - sum(run.machines for run in running if run.stopping)
    victims: list[Holding] = []
    lower = [run for run in running if run.priority < wish.priority and not run.stopping]
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


def _turn(wish: Wish, held: Mapping[str, int]) -> tuple[int, float, datetime, str]:
    share = held.get(wish.project_id, 0) / wish.weight
    return -wish.priority, share, wish.created_at, wish.job_id
