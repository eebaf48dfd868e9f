"""Which of the jobs with equally many chunks in flight was served least."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from jobs.decisions.fair_share import Candidate


class ServedCounts:
    """How many chunks of each job of a pool this process has sent.

    A job that comes starts with the count of the job that was served least, so that it neither
    waits for the others nor goes before them for long. Another leader counts from zero.
    """

    def __init__(self) -> None:
        self._served: dict[str, int] = {}

    def counted(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The candidates with their counts; jobs that are no candidates are forgotten."""
        known = [self._served[job.job_id] for job in candidates if job.job_id in self._served]
        fewest = min(known, default=0)
        self._served = {job.job_id: self._served.get(job.job_id, fewest) for job in candidates}
        return [dataclasses.replace(job, served=self._served[job.job_id]) for job in candidates]

    def sent(self, job_ids: Iterable[str]) -> None:
        """One chunk of each of these jobs was sent."""
        for job_id in job_ids:
            self._served[job_id] += 1

    def recalled(self, candidates: Iterable[Candidate]) -> list[Candidate]:
        """The candidates once their messages are taken out of the queue: nothing of it counts."""
        return [self._recalled(job) for job in candidates]

    def _recalled(self, job: Candidate) -> Candidate:
        self._served[job.job_id] -= job.sent
        return dataclasses.replace(
            job,
            sent=0,
            available=job.available + job.sent,
            served=self._served[job.job_id],
        )
