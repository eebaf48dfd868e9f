"""Fair share: highest priority, then the project with the smallest weighted share, then oldest.

Weighted max-min fairness over chunks in flight: a project's share is its chunks in flight divided
by its weight, and each grant goes to the project whose share is smallest at that moment.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Candidate:
    """A job with chunks that could be dispatched now."""

    job_id: str
    project_id: str
    weight: float
    priority: int
    created_at: datetime
    in_flight: int  # chunks that are leased, or have a message in the queue
    available: int  # chunks that could be dispatched now


def share_out(candidates: Iterable[Candidate], *, free: int) -> dict[str, int]:
    """How many chunks of each job to dispatch, at most ``free`` in all."""
    jobs = list(candidates)
    load = _load_by_project(jobs)
    waiting = _queues(jobs)
    heap = [_entry(queue[-1], load) for queue in waiting.values()]
    heapq.heapify(heap)
    granted: dict[str, int] = {}
    while free > 0 and heap:
        _, share, _, _, job = heapq.heappop(heap)
        if share != load[job.project_id] / job.weight:  # stale: served at another priority
            heapq.heappush(heap, _entry(job, load))
            continue
        queue = waiting[job.project_id, job.priority]
        granted[job.job_id] = granted.get(job.job_id, 0) + 1
        load[job.project_id] += 1
        free -= 1
        if granted[job.job_id] == job.available:
            queue.pop()
        if queue:
            heapq.heappush(heap, _entry(queue[-1], load))
    return granted


def _entry(job: Candidate, load: dict[str, float]) -> tuple[int, float, datetime, str, Candidate]:
    return -job.priority, load[job.project_id] / job.weight, job.created_at, job.job_id, job


def _load_by_project(jobs: list[Candidate]) -> dict[str, float]:
    load: dict[str, float] = {}
    for job in jobs:
        load[job.project_id] = load.get(job.project_id, 0.0) + job.in_flight
    return load


def _queues(jobs: list[Candidate]) -> dict[tuple[str, int], list[Candidate]]:
    """Jobs by project and priority, the oldest last, so that it is popped first."""
    queues: dict[tuple[str, int], list[Candidate]] = {}
    for job in sorted(jobs, key=lambda job: (job.created_at, job.job_id), reverse=True):
        if job.available > 0:
            queues.setdefault((job.project_id, job.priority), []).append(job)
    return queues
