"""The two works: the job, the moments in it, and what must hold at its end.

A bulk job holds if it succeeded, ``jobs verify`` finds no problem, every row has the label that it
has in an undisturbed job, and no chunk counts more crashes than processes of the worker died. A
fine-tune holds if it succeeded with the weights of an undisturbed one, bit for bit, and no lost run
was charged to the job itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import sqlalchemy as sa

from benchmarks.fault_matrix.cells import Cell, Target, Work
from benchmarks.fault_matrix.stage import Stage
from jobs.states import JobState
from jobs.tables import Chunk
from tests.support.installation import jsonl, sentences
from tests.workers.gang.trainer import Trainer

ROWS = 1_500
CHUNK_ROWS = 25
CHUNKS_BEFORE = 10
"""Chunks that are done when the fault comes."""

RECIPE = {"epochs": 20, "evaluate_steps": 300, "checkpoint_steps": 50}
STEPS_BEFORE = 60
"""Steps that are done when the fault comes: a checkpoint is stored."""


PLANNER = "claims by a planner again"


@dataclass(frozen=True)
class Outcome:
    """How a job ended: ``answer`` is the same for all that hold, ``waste`` is counted."""

    answer: object
    waste: dict[str, int]
    problems: tuple[str, ...] = ()


class Job(Protocol):
    """One work on a stage."""

    chunks_before: int
    steps_before: int

    def submit(self) -> str:
        """The id of a new job."""
        ...

    def outcome(self, job_id: str, cell: Cell | None) -> Outcome:
        """What the ledger and the store have of an ended job; the cell says who may have died."""
        ...


class Bulk:
    """A classification in chunks that take a few hundredths of a second."""

    chunks_before, steps_before = CHUNKS_BEFORE, 0

    def __init__(self, stage: Stage) -> None:
        self._installation = stage.installation
        self._corpus = jsonl(sentences(ROWS))

    def submit(self) -> str:
        """The id of a new job."""
        return self._installation.submit(self._corpus, chunk_rows=CHUNK_ROWS)

    def outcome(self, job_id: str, cell: Cell | None) -> Outcome:
        """Its labels; chunks that were claimed again, and crashes that were counted."""
        job = self._installation.job(job_id).job
        waste = {**self._waste(job_id), PLANNER: job.step_fence}
        problems = []
        if job.state is not JobState.SUCCEEDED:
            problems.append(f"the job {job.state}: {job.error_message or 'no reason'}")
            return Outcome(None, waste, tuple(problems))
        problems += self._installation.verify(job_id).problems
        deaths = int(cell is not None and cell.kills and cell.target is Target.WORKER)
        if waste["crashes"] > deaths:
            problems.append(
                f"{waste['crashes']} crashes of chunks are counted, and {deaths} workers died"
            )
        labels = {row["row"]: row["label"] for row in self._installation.results(job_id)}
        return Outcome(labels, waste, tuple(problems))

    def _waste(self, job_id: str) -> dict[str, int]:
        with self._installation.sessions.begin() as session:
            chunks = session.scalars(sa.select(Chunk).where(Chunk.job_id == job_id)).all()
            return {
                "chunks again": sum(each.fence - (each.part_key is not None) for each in chunks),
                "crashes": sum(each.crashes + each.load_crashes for each in chunks),
            }


class Finetune:
    """A fine-tune of a classifier of two layers on one of two hosts."""

    chunks_before, steps_before = 0, STEPS_BEFORE

    def __init__(self, stage: Stage) -> None:
        self._trainer = Trainer(stage.installation)

    def submit(self) -> str:
        """The id of a new job."""
        return self._trainer.submit(train=RECIPE)

    def outcome(self, job_id: str, cell: Cell | None) -> Outcome:  # noqa: ARG002 - any may die
        """Its weights; steps that were trained again, and runs that were lost."""
        job = self._trainer.installation.job(job_id).job
        runs = self._trainer.runs(job_id)
        again = sum(
            max(0, earlier.step - self._trainer.first_step_of(later))
            for earlier, later in pairwise(runs)
        )
        waste = {
            "training steps again": again,
            "runs again": len(runs) - 1,
            PLANNER: job.step_fence,
        }
        problems = [
            f"run {run.number} {run.state}: {run.reason}" for run in runs[:-1] if job.errors
        ]
        if job.state is not JobState.SUCCEEDED:
            problems.append(f"the job {job.state}: {job.error_message or job.run_error}")
            return Outcome(None, waste, tuple(problems))
        if job.errors:
            problems.append(f"{job.errors} lost runs are charged to the job itself")
        return Outcome(self._trainer.weights(job_id), waste, tuple(problems))


def job_of(stage: Stage) -> Job:
    """The work of a stage."""
    return Bulk(stage) if stage.work is Work.BULK else Finetune(stage)


def differences(outcome: Outcome, undisturbed: Outcome) -> dict[str, Any]:
    """``holds``, ``problems`` and the waste beyond that of an undisturbed job."""
    problems = list(outcome.problems)
    if outcome.answer is not None and outcome.answer != undisturbed.answer:
        problems.append("its results are not those of an undisturbed job")
    waste = {
        name: max(0, count - undisturbed.waste.get(name, 0))
        for name, count in outcome.waste.items()
    }
    return {"holds": not problems, "problems": problems, "waste": waste}
