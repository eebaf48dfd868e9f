"""What stands in the places of a page; pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from api.server import schemas
from jobs import figures
from jobs.decisions.job_actions import JobAction
from jobs.states import FINAL, JobState

TONES = {
    "succeeded": "good",
    "done": "good",
    "active": "good",
    "running": "live",
    "planning": "live",
    "finalizing": "live",
    "forming": "live",
    "submitted": "live",
    "failed": "bad",
    "expired": "bad",
    "lost": "bad",
    "missed": "bad",
    "paused": "warn",
    "cancelling": "warn",
    "preempted": "warn",
    "buffered": "warn",
}
"""The colour of a state; the others have none. Its word stands beside it everywhere."""

LONGEST_CELL = 300
"""Characters of one value in a table."""

STATES = tuple(JobState)
ACTIONS = tuple(JobAction)

DONE = {
    JobAction.CANCEL: "cancelled",
    JobAction.PAUSE: "paused",
    JobAction.RESUME: "resumed",
    JobAction.RETRY: "retried",
    JobAction.DELETE: "deleted",
}

MEANING = {
    JobAction.CANCEL: "It stops at the next chunk boundary; training stops at once. "
    "What is done is kept.",
    JobAction.PAUSE: "Nothing new begins. Chunks that are under way end; training makes a "
    "checkpoint first.",
    JobAction.RESUME: "It goes on where it was.",
    JobAction.RETRY: "The failed rows are done again, and what was never done. "
    "Training goes on from its last checkpoint.",
    JobAction.DELETE: "The job and its results are removed for good. Versions of models that it "
    "registered stay.",
}


@dataclass(frozen=True)
class Done:
    """How much of a job is done."""

    words: str  # "1,200 of 5,000 rows"
    percent: int | None  # null: the total is not known


def tone(state: str) -> str:
    """The colour of a state as the ending of a class."""
    return TONES.get(state, "none")


def done(job: schemas.Progress) -> Done:
    """Rows of bulk work, steps of training, rows of an evaluation."""
    training = job.training
    if training is None:
        return _done(job.rows.done, job.rows.total, "rows")
    if training.steps_total is None and training.evaluated is not None:
        return _done(training.evaluated.rows, training.evaluated.rows_total, "rows")
    return _done(training.step, training.steps_total, "steps")


def rate(job: schemas.Progress) -> str:
    """Rows or steps per second."""
    if job.training is None:
        return figures.rate(job.rate, unit="rows") if job.rows.done else figures.NONE
    unit = "rows" if job.training.steps_total is None else "steps"
    return figures.rate(job.training.rate, unit=unit)


def eta(job: schemas.Progress) -> str:
    """Time until the end."""
    return figures.NONE if job.state in FINAL else figures.span(job.eta_seconds)


def ended(job: schemas.Progress) -> bool:
    """Whether its state is final."""
    return job.state in FINAL


def model(job: schemas.Job) -> str:
    """The model that it uses, or that it makes; empty: there is none."""
    asked = job.model or ""
    return asked if job.kind == "finetune" else job.model_pinned or asked


def trouble(job: schemas.Job) -> str:
    """Why it failed, else why it waits; empty: it moves, or ended well."""
    if job.error is not None:
        return f"{job.error.code}: {job.error.message}"
    return job.waiting_reason or job.skipped or ""


def cell(value: Any) -> str:
    """A value of a result row."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return figures.value(value)
    if isinstance(value, dict):
        text = ", ".join(f"{name} {cell(each)}" for name, each in value.items())
    else:
        text = ", ".join(map(cell, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= LONGEST_CELL else f"{text[:LONGEST_CELL]}…"


def event(data: dict[str, Any]) -> str:
    """What an event of a job has besides its type."""
    parts = (f"{name} {cell(value)}" for name, value in data.items() if value not in (None, ""))
    return "; ".join(parts)[:LONGEST_CELL]


def local(time: str) -> str:
    """A time of a schedule's zone, without its offset from UTC."""
    return time[:19].replace("T", " ")


def share(part: float, whole: float) -> int:
    """Percents for a bar; at least one where there is anything."""
    return max(1, round(100 * part / whole)) if whole > 0 and part > 0 else 0


def _done(number: int, total: int | None, unit: str) -> Done:
    of = "" if total is None else f" of {total:,}"
    return Done(f"{number:,}{of} {unit}", figures.percent(number, total))
