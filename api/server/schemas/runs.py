"""What the API answers about training: runs, ranks, checkpoints, curves, logs, hosts."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Self

from pydantic import BaseModel

from jobs import tables
from jobs.numbers import finite
from jobs.queries import training_progress
from jobs.queries.curves import LastPoint
from jobs.queries.hosts import HostView
from jobs.queries.runs import RunView
from jobs.queries.training_progress import EvaluationProgress
from jobs.states import RankState, RunState


class RejectedRow(BaseModel):
    """A row of a labelled corpus that was left out, and why."""

    line: int
    code: str
    message: str
    source: str | None = None  # the object with that line; null: the corpus is one object


class Split(BaseModel):
    """What the planner found in one corpus of a training job."""

    rows: int
    rejected: int
    examples: list[RejectedRow] = []  # the first rejected rows, 20 at most; empty in listings


class Evaluated(BaseModel):
    """How far an evaluation is; an incumbent's rows count as well as the new version's."""

    rows: int
    rows_total: int
    under_way: bool


class Training(BaseModel):
    """How far a training job is; of the newest run, null where there was none."""

    run: int | None
    state: RunState | None
    phase: str | None  # of a live run, in a word: loading, training, evaluating ...
    step: int
    steps_total: int | None  # null: not known yet; of an evaluation job: it has no steps
    evaluated: Evaluated | None  # the newest evaluation of the run; null: there was none
    machines: int | None
    rate: float | None  # steps per second; of an evaluation job rows per second
    eta_seconds: float | None
    loss: float | None
    learning_rate: float | None
    samples_per_second: float | None
    evaluation: dict[str, float | None]  # metric -> last value on the validation rows
    faults: int  # runs lost to machines since the last retry
    errors: int  # runs that crashed by themselves since then
    run_error: str | None  # why the last run ended early
    splits: dict[str, Split]

    @classmethod
    def of(cls, found: training_progress.TrainingProgress) -> Self:
        """One training job at one moment."""
        run = found.newest.run if found.newest else None
        return cls(
            run=run.number if run else None,
            state=run.state if run else None,
            phase=found.phase,
            step=found.step,
            steps_total=run.steps_total if run else None,
            evaluated=_evaluated(found.evaluated),
            machines=run.machines if run else None,
            rate=found.rate,
            eta_seconds=found.eta_seconds,
            loss=finite(found.value("loss")),
            learning_rate=found.value("learning_rate"),
            samples_per_second=found.value("samples_per_second"),
            evaluation={name: finite(value) for name, value in found.evaluation.items()},
            faults=found.job.faults,
            errors=found.job.errors,
            run_error=found.job.run_error,
            splits={name: Split.model_validate(split) for name, split in found.splits.items()},
        )


def _evaluated(found: EvaluationProgress | None) -> Evaluated | None:
    if found is None:
        return None
    return Evaluated(rows=found.rows, rows_total=found.rows_total, under_way=found.under_way)


class Rank(BaseModel):
    """One host's part in a run."""

    rank: int
    host: str
    address: str
    state: RankState
    phase: str | None
    progress_at: datetime | None
    outcome: str | None
    exit_code: int | None
    error_code: str | None
    error: str | None
    claimed_at: datetime | None
    ended_at: datetime | None

    @classmethod
    def of(cls, rank: tables.Rank) -> Self:
        """One rank."""
        return cls(
            rank=rank.rank,
            host=rank.host,
            address=rank.address,
            state=rank.state,
            phase=rank.phase,
            progress_at=rank.progress_at,
            outcome=rank.outcome,
            exit_code=rank.exit_code,
            error_code=rank.error_code,
            error=rank.error,
            claimed_at=rank.claimed_at,
            ended_at=rank.ended_at,
        )


class Run(BaseModel):
    """One attempt at a training job by one gang of hosts."""

    id: str
    object: Literal["run"] = "run"
    number: int
    state: RunState
    machines: int
    from_step: int  # of the checkpoint that it resumed from; 0: from the beginning
    step: int
    steps_total: int | None
    stop: str | None
    stop_reason: str | None
    reason: str | None  # why it ended other than well
    failing_rank: int | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    ranks: list[Rank]

    @classmethod
    def of(cls, view: RunView) -> Self:
        """One run."""
        run = view.run
        return cls(
            id=run.id,
            number=run.number,
            state=run.state,
            machines=run.machines,
            from_step=view.from_step,
            step=run.step,
            steps_total=run.steps_total,
            stop=run.stop,
            stop_reason=run.stop_reason,
            reason=run.reason,
            failing_rank=run.failing_rank,
            created_at=run.created_at,
            started_at=run.started_at,
            finished_at=run.finished_at,
            ranks=[Rank.of(rank) for rank in view.ranks],
        )


class RunPage(BaseModel):
    """Runs, newest first; ``next`` is the ``after`` of the next page."""

    object: Literal["list"] = "list"
    data: list[Run]
    has_more: bool
    next: int | None


class Checkpoint(BaseModel):
    """A complete checkpoint, whether or not it was deleted or found damaged."""

    id: int
    object: Literal["checkpoint"] = "checkpoint"
    step: int
    run: str
    metric: float | None
    best: bool  # so far, when it was made
    bytes: int
    created_at: datetime
    damaged_at: datetime | None
    deleted_at: datetime | None

    @classmethod
    def of(cls, checkpoint: tables.Checkpoint) -> Self:
        """One checkpoint."""
        return cls(
            id=checkpoint.id,
            step=checkpoint.step,
            run=checkpoint.run_id,
            metric=finite(checkpoint.metric),
            best=checkpoint.best,
            bytes=checkpoint.bytes,
            created_at=checkpoint.created_at,
            damaged_at=checkpoint.damaged_at,
            deleted_at=checkpoint.deleted_at,
        )


class CheckpointList(BaseModel):
    """Every checkpoint of a job, newest first."""

    object: Literal["list"] = "list"
    data: list[Checkpoint]
    has_more: Literal[False] = False


class Point(BaseModel):
    """One number of a curve; null where it was not finite."""

    name: str
    step: int
    value: float | None
    run: int
    at: datetime

    @classmethod
    def of(cls, point: tables.Point | LastPoint) -> Self:
        """One point."""
        return cls(
            name=point.name,
            step=point.step,
            value=finite(point.value),
            run=point.run_number,
            at=point.at,
        )


class PointPage(BaseModel):
    """One curve in the order of its steps, or the newest point of every curve.

    ``next`` is the ``after`` of the next page, and of the next look where more is to come.
    """

    object: Literal["list"] = "list"
    data: list[Point]
    has_more: bool
    next: int | None


class LogLine(BaseModel):
    """A line that a rank's processes wrote."""

    id: int
    run: int
    rank: int
    at: datetime
    text: str

    @classmethod
    def of(cls, line: tables.LogLine) -> Self:
        """One line."""
        return cls(id=line.id, run=line.run_number, rank=line.rank, at=line.at, text=line.text)


class LogPage(BaseModel):
    """Log lines in the order in which they came.

    ``next`` is the ``after`` of the next page, and of the next look where lines are still to come.
    ``complete``: the job has ended and nothing follows.
    """

    object: Literal["list"] = "list"
    data: list[LogLine]
    has_more: bool
    next: int | None
    complete: bool


class Host(BaseModel):
    """A machine that trains; ``alive`` if its agent has beaten lately."""

    name: str
    object: Literal["host"] = "host"
    pool: str
    address: str
    device: str
    devices: int
    memory_bytes: int
    shares_pool: str | None
    sharing: str | None
    draining: bool
    busy: bool  # reserved by a gang
    job: str | None  # whose; null: idle, or another project's
    run: int | None
    started_at: datetime
    beat_at: datetime
    alive: bool

    @classmethod
    def of(cls, view: HostView) -> Self:
        """One host."""
        host = view.host
        return cls(
            name=host.name,
            pool=host.pool,
            address=host.address,
            device=host.device,
            devices=host.devices,
            memory_bytes=host.memory_bytes,
            shares_pool=host.shares_pool,
            sharing=host.sharing,
            draining=host.draining,
            busy=host.run_id is not None,
            job=view.job_id,
            run=view.run_number,
            started_at=host.started_at,
            beat_at=host.beat_at,
            alive=view.alive,
        )


class HostList(BaseModel):
    """Every host of the installation, by pool and name."""

    object: Literal["list"] = "list"
    data: list[Host]
    has_more: Literal[False] = False
