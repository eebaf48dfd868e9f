"""Schedules whose jobs are really planned, night by night."""

from __future__ import annotations

from typing import Any

from jobs.results import parts
from jobs.schedules.states import FireState
from jobs.tables import Job
from tests.jobs.ledger.scheduling import Clockwork, at
from tests.workers.bulk import training
from tests.workers.bulk.conftest import Workshop
from workers.bulk import planner
from workers.context import Context


def planned(workshop: Workshop, context: Context, job_id: str) -> Job:
    planner.plan(job_id, context=context)
    return workshop.ledger.job(job_id)


def rows(workshop: Workshop, job: Job) -> list[dict[str, Any]]:
    found = []
    for shard in training.shards(workshop, job.id):
        table = parts.read_rows(workshop.store, shard.object_key, offset=0, rows=shard.rows)
        found += table.to_pylist()
    return found


class Nights:
    """A schedule that reads what is new; ``fire`` is a night."""

    def __init__(
        self, workshop: Workshop, clockwork: Clockwork, context: Context, spec: dict[str, Any]
    ) -> None:
        self.workshop, self.clockwork, self.context = workshop, clockwork, context
        timing = {"cron": ["0 2 * * *"]}
        self.schedule = clockwork.create(timing=timing, spec=spec, overlap="allow")
        self.nights = 0

    def fire(self) -> Job:
        """A night whose job is planned."""
        self.nights += 1
        self.clockwork.move_to(at(f"2026-12-{self.nights:02} 02:00"))
        job = self.clockwork.jobs(self.schedule)[-1]
        return planned(self.workshop, self.context, job.id)

    def succeed(self, job: Job) -> None:
        self.workshop.do(job.id)
        self.workshop.finish(job.id)

    def states(self) -> list[FireState]:
        return self.clockwork.states(self.schedule)
