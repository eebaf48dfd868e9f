"""How far a job was at each moment, and what follows: when it went on, how long it stood still.

Pure, except ``Watch``, which asks the ledger in a thread, on a connection that no fault touches.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import psycopg

from jobs.states import FINAL, JobState

EVERY = 0.05
"""Seconds between two samples: the error of every time that is measured."""

QUERY = b"""
SELECT job.state, job.rows_planned,
    (SELECT count(*) FROM chunks WHERE job_id = job.id AND state = 'done'),
    coalesce(run.number, 0), coalesce(run.step, 0)
FROM jobs AS job
LEFT JOIN LATERAL
    (SELECT number, step FROM runs WHERE job_id = job.id ORDER BY number DESC LIMIT 1) AS run
    ON true
WHERE job.id = %s
"""


@dataclass(frozen=True)
class Sample:
    """How far a job is at one moment."""

    at: float  # monotonic
    state: JobState
    planned: int = 0  # rows
    done: int = 0  # chunks
    run: int = 0  # number of the newest
    step: int = 0  # of that run


def went_on(before: Sample, after: Sample) -> bool:
    """Whether the job has moved between two samples; a new run moves it with its first step."""
    if after.state is not before.state or after.planned > before.planned:
        return True
    if after.done > before.done:
        return True
    return after.step > (before.step if after.run == before.run else 0)


def moves(samples: Iterable[Sample]) -> Iterator[float]:
    """The moments at which the job went on."""
    for before, after in pairwise(samples):
        if went_on(before, after):
            yield after.at


def recovery(samples: Sequence[Sample], *, since: float) -> float | None:
    """Seconds from ``since`` until the job went on; 0: it had ended; ``None``: it never did."""
    if samples[-1].state in FINAL and samples[-1].at <= since:
        return 0.0
    return next((at - since for at in moves(samples) if at > since), None)


def pause(samples: Sequence[Sample], *, since: float) -> float:
    """The longest time after ``since`` in which the job did not go on."""
    at = [since, *(at for at in moves(samples) if at > since)]
    return max((later - earlier for earlier, later in pairwise(at)), default=0.0)


class Watch:
    """Samples one job until it has ended or ``close`` is called."""

    def __init__(self, url: str, job_id: str) -> None:
        self.samples: list[Sample] = []
        self._url, self.job_id = url, job_id
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Whether the job is in a final state."""
        return bool(self.samples) and self.samples[-1].state in FINAL

    def reached(self, *, chunks: int = 0, steps: int = 0) -> bool:
        """Whether this many chunks, or steps, are done; also true once the job has ended."""
        return bool(self.samples) and (
            self.ended or (self.samples[-1].done >= chunks and self.samples[-1].step >= steps)
        )

    def close(self) -> None:
        """Sample no more."""
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        while not (self._closed.is_set() or self.ended):
            try:
                with psycopg.connect(self._url, autocommit=True, connect_timeout=2) as ledger:
                    self._sample(ledger)
            except psycopg.Error:
                time.sleep(EVERY)

    def _sample(self, ledger: psycopg.Connection) -> None:
        while not (self._closed.is_set() or self.ended):
            row = ledger.execute(QUERY, [self.job_id]).fetchone()
            assert row is not None
            self.samples.append(Sample(time.monotonic(), JobState(row[0]), *map(int, row[1:])))
            time.sleep(EVERY)
