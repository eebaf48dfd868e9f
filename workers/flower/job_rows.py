"""Jobs as the pages show them: what stands in each place, in words; pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from jobs import figures
from jobs.message_words import Subject
from jobs.queries.all_jobs import ListedJob
from jobs.queries.jobs import JobView
from jobs.queries.occupancy import HeldChunk
from jobs.queries.runs import RunView
from jobs.states import FINAL, JOB_MOVES, LIVE_RUN, JobState, RunState
from jobs.tables import Event

BADGES = {
    JobState.SUCCEEDED: "text-bg-success",
    JobState.FAILED: "text-bg-danger",
    JobState.EXPIRED: "text-bg-danger",
    JobState.PAUSED: "text-bg-warning",
    JobState.CANCELLING: "text-bg-warning",
    RunState.LOST: "text-bg-danger",
    RunState.PREEMPTED: "text-bg-warning",
}
"""Of a state as the class of a badge; the others have ``PLAIN``."""

PLAIN = "text-bg-secondary"
MOVING = "task-state-started"

TASK_BADGES = {
    "SUCCESS": "text-bg-success",
    "FAILURE": "text-bg-danger",
    "RETRY": "text-bg-warning",
    "STARTED": MOVING,
}
"""Of the states of Celery's tasks, as Flower's own page of a task has them."""


@dataclass(frozen=True)
class JobRow:
    """A job in the listing, and at the head of its page."""

    id: str
    project: str
    kind: str
    name: str
    model: str
    pool: str
    state: str
    badge: str
    done: str  # "1,200 of 5,000 rows"
    percent: int | None
    rate: str
    eta: str
    failed: str
    errors: tuple[tuple[str, str], ...]  # code, rows
    why: str  # why it failed or waits; empty: it moves, or ended well
    created: str
    age: str


def listed(found: ListedJob) -> JobRow:
    """A job of the listing."""
    return row(found.view, found.errors)


def row(view: JobView, errors: dict[str, int]) -> JobRow:
    """``errors``: rows by code."""
    job = view.job
    unit, done, total = _progress(view)
    of = f" of {figures.count(total)}" if total is not None else ""
    ended = job.state in FINAL
    return JobRow(
        id=job.id,
        project=job.project_id,
        kind=job.kind,
        name=job.spec.get("name") or "",
        model=model(view),
        pool=job.pool,
        state=job.state,
        badge=badge(job.state),
        done=f"{figures.count(done)}{of} {unit}",
        percent=figures.percent(done, total),
        rate=figures.NONE if ended and not done else _rate(view, unit=unit),
        eta=figures.NONE if ended else figures.span(view.eta_seconds),
        failed=figures.count(view.counts.rows_failed),
        errors=tuple((code, figures.count(rows)) for code, rows in errors.items()),
        why=why(view),
        created=figures.moment(job.created_at),
        age=figures.age(job.created_at, now=view.now),
    )


def _rate(view: JobView, *, unit: str) -> str:
    return figures.rate(view.training.rate if view.training else view.rate, unit=unit)


def why(view: JobView) -> str:
    """Why it failed, else why it waits."""
    job = view.job
    if job.error_code is not None:
        return f"{job.error_code}: {job.error_message or ''}"
    return view.waiting_reason or ""


def model(view: JobView) -> str:
    """The model that it uses, or that it makes; empty: there is none."""
    asked = view.job.spec.get("model")
    return (asked if view.job.kind == "finetune" else view.job.model_pinned or asked) or ""


def badge(state: JobState | RunState) -> str:
    """The class of a state's badge."""
    if state in {JobState.RUNNING, JobState.PLANNING, JobState.FINALIZING, RunState.FORMING}:
        return MOVING
    return BADGES.get(state, PLAIN)


def task_badge(state: str) -> str:
    """The same of a Celery task, in Flower's colours."""
    return TASK_BADGES.get(state, PLAIN)


def actions(state: JobState) -> tuple[str, ...]:
    """What an operator may do to a job in this state, as its page posts it."""
    if state in FINAL or state is JobState.CANCELLING:
        return ()
    if state is JobState.PAUSED:
        return ("resume", "cancel")
    return ("pause", "cancel") if JobState.PAUSED in JOB_MOVES[state] else ("cancel",)


def _progress(view: JobView) -> tuple[str, int, int | None]:
    """What is counted, how much of it is done, and how much there is."""
    training = view.training
    if training is None:
        return "rows", view.counts.rows_done, view.job.rows_total
    run = training.newest.run if training.newest else None
    if run is not None and run.steps_total is None and training.evaluated is not None:
        return "rows", training.evaluated.rows, training.evaluated.rows_total
    return "steps", training.step, None if run is None else run.steps_total


@dataclass(frozen=True)
class ChunkRow:
    """A chunk that a worker holds."""

    worker: str
    words: str  # "chunk 17, rows 16,000 to 16,999"
    job_id: str
    about: str  # "classify · news@3"
    percent: int | None
    since: str


def held(chunk: HeldChunk, *, now: datetime) -> ChunkRow:
    """One, as of ``now``."""
    last = chunk.first_row + chunk.rows - 1
    place = "chunk" if chunk.number is None else f"chunk {chunk.number:,}"
    since = "loading" if chunk.begun_at is None else figures.age(chunk.begun_at, now=now)
    if chunk.lease_expires_at < now:
        since = "its lease ran out"
    return ChunkRow(
        worker=chunk.worker,
        words=f"{place}, rows {chunk.first_row:,} to {last:,}",
        job_id=chunk.subject.job_id,
        about=about(chunk.subject),
        percent=figures.percent(chunk.fraction_done or 0.0, 1.0),
        since=since,
    )


def about(subject: Subject) -> str:
    """``classify · news@3``."""
    return " · ".join(part for part in (subject.kind, subject.model) if part)


@dataclass(frozen=True)
class RankRow:
    """A rank of a run."""

    rank: int
    host: str
    state: str
    phase: str
    outcome: str
    error: str


@dataclass(frozen=True)
class RunRow:
    """A run with its ranks."""

    number: int
    state: str
    badge: str
    live: bool
    step: str  # "120 of 400"
    began: str
    ended: str
    reason: str
    ranks: tuple[RankRow, ...]


def run(found: RunView) -> RunRow:
    """A run of a training job."""
    of = f" of {found.run.steps_total:,}" if found.run.steps_total is not None else ""
    return RunRow(
        number=found.run.number,
        state=found.run.state,
        badge=MOVING if found.run.state is RunState.RUNNING else badge(found.run.state),
        live=found.run.state in LIVE_RUN,
        step=f"{found.run.step:,}{of}",
        began=figures.moment(found.run.started_at),
        ended=figures.moment(found.run.finished_at),
        reason=found.run.reason or found.run.stop_reason or "",
        ranks=tuple(
            RankRow(
                rank=rank.rank,
                host=rank.host,
                state=rank.state,
                phase=rank.phase or "",
                outcome=rank.outcome or "",
                error=rank.error or "",
            )
            for rank in found.ranks
        ),
    )


@dataclass(frozen=True)
class EventRow:
    """Something that happened to a job."""

    at: str
    type: str
    words: str


SHOWN = (
    *("action", "worker", "state", "run", "step", "chunk", "rows", "verdict", "how"),
    *("model", "reason", "words", "pieces", "by"),
)
"""Fields of events that a page shows: none of them is a text of a row."""

LONGEST = 300


def event(found: Event) -> EventRow:
    """One event, without what it has of rows."""
    parts = []
    for name in SHOWN:
        value = found.data.get(name)
        if isinstance(value, str | int | list):
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            parts.append(f"{name} {text}")
    return EventRow(figures.moment(found.at), found.type, "; ".join(parts)[:LONGEST])
