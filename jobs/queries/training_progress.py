"""How far a training job is: its newest run, its newest metrics, its pace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from jobs.kinds import TRAINING
from jobs.queries import curves, runs
from jobs.queries.curves import LastPoint, Pace
from jobs.queries.runs import RunView
from jobs.states import LIVE_RUN, RunState
from jobs.tables import Job

EVALUATION = "validation/"
"""How the names of curves begin that were measured on the validation rows."""

PACE_WINDOW = timedelta(minutes=2)
LEAST_SPAN = 0.5
"""Seconds of a live run from which a pace can be measured."""


EVALUATING = "evaluating"
"""The phase of a rank that evaluates."""


@dataclass(frozen=True)
class EvaluationProgress:
    """The newest evaluation of the newest run."""

    rows: int
    rows_total: int  # of all models that it evaluates
    under_way: bool
    rate: float | None  # rows per second; null: not known yet

    @property
    def eta_seconds(self) -> float | None:
        """Seconds until its last row; ``None``: it is over, or its pace is not known yet."""
        if not self.under_way or not self.rate:
            return None
        return (self.rows_total - self.rows) / self.rate


@dataclass(frozen=True)
class TrainingProgress:
    """One training job at one moment."""

    job: Job
    newest: RunView | None  # null: no gang was ever formed
    last: list[LastPoint]
    pace: Pace | None  # of a live run
    now: datetime
    with_examples: bool  # of rejected rows, in ``splits``

    @property
    def step(self) -> int:
        """Optimizer steps done, those of earlier runs up to the checkpoint included."""
        return self.newest.run.step if self.newest else 0

    @property
    def phase(self) -> str | None:
        """What the first rank of a live run does, in a word."""
        if self.newest is None or self.newest.run.state not in LIVE_RUN:
            return None
        return self.newest.ranks[0].phase if self.newest.ranks else None

    @property
    def evaluated(self) -> EvaluationProgress | None:
        """How far the newest evaluation of the newest run is; ``None``: there was none."""
        run = self.newest.run if self.newest else None
        if run is None or run.evaluation_began_at is None:
            return None
        rows, total = run.evaluated_rows or 0, run.evaluation_rows or 0
        seconds = ((run.finished_at or self.now) - run.evaluation_began_at).total_seconds()
        return EvaluationProgress(
            rows=rows,
            rows_total=total,
            under_way=self.phase == EVALUATING,
            rate=rows / seconds if seconds > LEAST_SPAN and rows else None,
        )

    @property
    def rate(self) -> float | None:
        """Steps per second: lately, or over the whole last run once it has ended.

        An evaluation job has no steps, and its rate is in rows.
        """
        if self.newest is not None and self.newest.run.steps_total is None:
            return self.evaluated.rate if self.evaluated else None
        began = self._began()
        if began is None or self.newest is None:
            return None
        ended = self.newest.run.finished_at
        seconds, steps = ((ended or self.now) - began.at).total_seconds(), self.step - began.step
        return steps / seconds if seconds > (0 if ended else LEAST_SPAN) and steps > 0 else None

    @property
    def eta_seconds(self) -> float | None:
        """Seconds until the last step at the present pace, and until the evaluation under way ends.

        After the last step: until that evaluation ends. Unknown while the result is stored.
        """
        if self.newest is None or self.newest.run.state is not RunState.RUNNING:
            return None
        evaluation = self.evaluated.eta_seconds if self.evaluated else None
        total = self.newest.run.steps_total
        if total is None or self.step >= total:
            return evaluation
        if self.rate is None:
            return None
        return (total - self.step) / self.rate + (evaluation or 0.0)

    def value(self, name: str) -> float | None:
        """The newest number of a curve."""
        return next((point.value for point in self.last if point.name == name), None)

    @property
    def evaluation(self) -> dict[str, float]:
        """What was last measured on the validation rows, by metric."""
        return {
            point.name.removeprefix(EVALUATION): point.value
            for point in self.last
            if point.name.startswith(EVALUATION)
        }

    @property
    def splits(self) -> dict[str, Any]:
        """What the planner found in each corpus; empty before."""
        found: dict[str, dict[str, Any]] = (self.job.dataset or {}).get("splits", {})
        if self.with_examples:
            return found
        return {name: {**split, "examples": []} for name, split in found.items()}

    def _began(self) -> Pace | None:
        """From where the pace is taken: of a live run a while ago, else its beginning."""
        newest = self.newest
        if newest is None or newest.run.started_at is None:
            return None
        if self.pace is not None and self.step > self.pace.step:
            return self.pace
        return Pace(step=newest.from_step, at=newest.run.started_at)


def look(
    session: Session, jobs: Sequence[Job], *, now: datetime, examples: bool
) -> dict[str, TrainingProgress]:
    """Those of the jobs that train or evaluate, by id; ``examples``: with their rejected rows."""
    ours = {job.id: job for job in jobs if job.kind in TRAINING}
    if not ours:
        return {}
    newest = runs.latest(session, ours)
    last = curves.last(session, {job_id: _up_to(newest.get(job_id)) for job_id in ours})
    return {
        job_id: TrainingProgress(
            job=job,
            newest=newest.get(job_id),
            last=last[job_id],
            pace=_pace(session, newest.get(job_id), now=now),
            now=now,
            with_examples=examples,
        )
        for job_id, job in ours.items()
    }


def _up_to(newest: RunView | None) -> int | None:
    """The step behind which points are an earlier run's; ``None`` where the newest went through."""
    if newest is None or newest.run.state is RunState.SUCCEEDED:
        return None
    return newest.run.step


def _pace(session: Session, newest: RunView | None, *, now: datetime) -> Pace | None:
    """Asked for live runs alone, of which there are no more than hosts."""
    if newest is None or newest.run.state is not RunState.RUNNING:
        return None
    run = newest.run
    return curves.pace(session, run.job_id, run_number=run.number, now=now, window=PACE_WINDOW)
