"""Fair share: highest priority, then the project with the smallest weighted share, then fair turns.

Weighted max-min fairness over chunks in flight. A project's share is its chunks in flight divided
by its weight. Each grant goes to the project whose share is smallest at that moment, and within the
project to the job with the fewest chunks in flight. Of those with equally few, the job that was
served least goes first, then the oldest.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple


@dataclass(frozen=True)
class Candidate:
    """A job whose chunks could be dispatched now."""

    job_id: str
    project_id: str
    weight: float
    priority: int
    created_at: datetime
    leased: int  # chunks that workers compute
    sent: int  # chunks with a message in the queue
    available: int  # chunks that could be dispatched now
    served: int = 0  # chunks dispatched before: decides between jobs with equally many in flight

    @property
    def in_flight(self) -> int:
        """Chunks that are leased, or have a message in the queue."""
        return self.leased + self.sent


def share_out(candidates: Iterable[Candidate], *, free: int) -> list[str]:
    """Whose chunks to dispatch, at most ``free``: one job id for each grant, in order."""
    jobs = list(candidates)
    load = _load_by_project(jobs)
    queues = _queues(jobs)
    heap = [_entry(queue[0].job, load) for queue in queues.values()]
    heapq.heapify(heap)
    granted: list[str] = []
    while len(granted) < free and heap:
        _, share, _, job = heapq.heappop(heap)
        if share != load[job.project_id] / job.weight:  # stale: served at another priority
            heapq.heappush(heap, _entry(job, load))
            continue
        granted.append(job.job_id)
        load[job.project_id] += 1
        queue = queues[job.project_id, job.priority]
        heapq.heappop(queue)
        if job.available > 1:
            heapq.heappush(queue, _waiting(_after_grant(job)))
        if queue:
            heapq.heappush(heap, _entry(queue[0].job, load))
    return granted


def is_out_of_turn(candidates: Sequence[Candidate], *, queued: int) -> bool:
    """Whether a job has to wait behind some of the ``queued`` messages though it goes before them.

    The places of the queue are shared out again. The queue is out of turn if one of them goes to a
    job that has nothing in flight, or a higher priority than a job with a message there. Between
    jobs with equally many chunks in flight, those that have a place keep it.
    """
    lowest = min((job.priority for job in candidates if job.sent), default=None)
    if lowest is None:
        return False
    overtaking = [
        job for job in candidates if job.available and (not job.in_flight or job.priority > lowest)
    ]
    if not overtaking:
        return False
    places = Counter(share_out(map(_without_place, candidates), free=queued))
    return any(places[job.job_id] > job.sent for job in overtaking)


def _without_place(job: Candidate) -> Candidate:
    return dataclasses.replace(
        job, sent=0, available=job.available + job.sent, served=0 if job.sent else 1
    )


class _Waiting(NamedTuple):
    """A job in the queue of its project and priority; the smallest is next."""

    in_flight: int
    served: int
    created_at: datetime
    job_id: str
    job: Candidate


def _waiting(job: Candidate) -> _Waiting:
    return _Waiting(job.in_flight, job.served, job.created_at, job.job_id, job)


def _after_grant(job: Candidate) -> Candidate:
    return dataclasses.replace(
        job, sent=job.sent + 1, served=job.served + 1, available=job.available - 1
    )


def _entry(
    job: Candidate, load: Mapping[str, int]
) -> tuple[int, float, tuple[int, datetime, str], Candidate]:
    """Sorts by priority, then share; projects of equal share as jobs of one project do."""
    share = load[job.project_id] / job.weight
    return -job.priority, share, (job.served, job.created_at, job.job_id), job


def _load_by_project(jobs: Iterable[Candidate]) -> dict[str, int]:
    load: dict[str, int] = defaultdict(int)
    for job in jobs:
        load[job.project_id] += job.in_flight
    return load


def _queues(jobs: Iterable[Candidate]) -> dict[tuple[str, int], list[_Waiting]]:
    """Jobs with chunks to dispatch by project and priority, each a heap."""
    queues: dict[tuple[str, int], list[_Waiting]] = defaultdict(list)
    for job in jobs:
        if job.available > 0:
            heapq.heappush(queues[job.project_id, job.priority], _waiting(job))
    return queues
