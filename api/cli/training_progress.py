"""A training job on a terminal: steps, loss, rate, the last evaluation, and why it waits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.text import Text

from api.cli import console, reports

Job = Mapping[str, Any]
"""A job, as the API shows it."""

JobProgress = Mapping[str, Any]
"""The progress of a job, which is a part of the job."""

Training = Mapping[str, Any]
"""What a job or its progress has as ``training``."""


class View:
    """Four lines that are drawn over and over; use it as a context."""

    def __init__(self, terminal: Console) -> None:
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[counts]}"),
            console=terminal,
        )
        self._task = self._bars.add_task("", total=None, counts="")
        self._live = Live(self._bars, console=terminal, transient=True, refresh_per_second=8)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def draw(self, progress: JobProgress) -> None:
        """Show the job as it is now."""
        training = progress["training"]
        completed, total = _bar(training)
        self._bars.update(
            self._task,
            description=escape(_activity(progress)),
            completed=completed,
            total=total,
            counts=_counts(training),
        )
        below = (_loss_and_lr(training), _validation_line(training), _problem(progress))
        lines = [Text(f"  {line}", overflow="fold") for line in below if line]
        self._live.update(Group(self._bars, *lines))


def status_line(progress: JobProgress) -> str:
    """What the job does, in a line that changes only when there is news."""
    parts = (_activity(progress), _validation_line(progress["training"]), _problem(progress))
    return "; ".join(part for part in parts if part)


def done(training: Training) -> str:
    """Steps done, of those known; of an evaluation job, which has none, rows."""
    evaluated = training["evaluated"]
    if training["steps_total"] is None and evaluated:
        return f"{_ratio(evaluated['rows'], evaluated['rows_total'])} rows"
    return f"{_ratio(training['step'], training['steps_total'])} steps"


def _ratio(count: int, total: int | None) -> str:
    return f"{console.number(count)}/{console.number(total)}"


def _bar(training: Training) -> tuple[int, int | None]:
    """What the bar shows: the evaluation under way, else the steps."""
    evaluated = training["evaluated"]
    if evaluated and evaluated["under_way"]:
        return evaluated["rows"], evaluated["rows_total"]
    return training["step"], training["steps_total"]


def detail_rows(job: Job) -> list[tuple[str, Any]]:
    """The rows of ``jobs show`` about a training job; ``None`` in one that is left out."""
    training, output = job["training"], job["output"] or {}
    splits = (
        f"{console.number(split['rows'])} {name}"
        + (f" ({console.number(split['rejected'])} rejected)" if split["rejected"] else "")
        for name, split in training["splits"].items()
    )
    runs_lost, runs_crashed = training["faults"], training["errors"]
    return [
        ("rows", ", ".join(splits) or None),
        ("run", _run(training)),
        ("phase", training["phase"]),
        ("done", done(training)),
        ("evaluated", _evaluation_progress(training)),
        ("rate", rate(training)),
        ("loss", _loss_and_lr(training)),
        ("evaluation", _metrics(training)),
        ("runs lost", runs_lost or None),
        ("runs crashed", runs_crashed or None),
        ("last run", training["run_error"]),
        ("registered", output.get("model")),
    ]


def summary(job: Job) -> str:
    """The final progress of an ended job."""
    training = job["training"]
    evaluated = training["evaluated"]
    said = f"{console.number(training['step'])} steps"
    if training["steps_total"] is None and evaluated:
        said = f"{console.number(evaluated['rows'])} rows"
    if speed := rate(training):
        said += f", {speed}"
    runs = training["run"] or 0
    return f"{said}, {runs} runs" if runs > 1 else said


def rate(training: Training) -> str | None:
    """Steps per second, or rows of an evaluation job; ``None``: not known."""
    value = training["rate"]
    if not value:
        return None
    unit = "rows/s" if training["steps_total"] is None else "steps/s"
    return f"{value:,.1f} {unit}" if value >= 1 else f"{value:.2g} {unit}"


def _evaluation_progress(training: Training) -> str | None:
    """Rows of the evaluation under way."""
    evaluated = training["evaluated"]
    if not evaluated or not evaluated["under_way"]:
        return None
    return f"{_ratio(evaluated['rows'], evaluated['rows_total'])} rows"


def _activity(progress: JobProgress) -> str:
    training = progress["training"]
    live = training["state"] in {"forming", "running"}
    if progress["state"] != "running" or not live:
        return str(progress["state"])
    return ", ".join(filter(None, (training["phase"] or training["state"], _run(training))))


def _run(training: Training) -> str | None:
    if training["run"] is None:
        return None
    hosts = training["machines"]
    return f"run {training['run']} on {hosts} host{'s' if hosts > 1 else ''}"


def _counts(training: Training) -> str:
    if training["run"] is None:
        return ""
    parts = [done(training)]
    if (rows := _evaluation_progress(training)) and training["steps_total"] is not None:
        parts.append(f"evaluated {rows}")
    if (speed := rate(training)) and training["state"] == "running":
        parts.append(speed)
    if training["eta_seconds"] is not None:
        parts.append(f"eta {console.duration(training['eta_seconds'])}")
    return "  ".join(parts)


def _loss_and_lr(training: Training) -> str | None:
    parts = []
    if training["loss"] is not None:
        parts.append(f"loss {reports.number(training['loss'])}")
    if training["learning_rate"] is not None:
        parts.append(f"learning rate {training['learning_rate']:.3g}")
    if training["samples_per_second"] is not None:
        parts.append(f"{training['samples_per_second']:,.0f} samples/s")
    return ", ".join(parts) or None


def _metrics(training: Training) -> str | None:
    return reports.metrics(training["evaluation"]) or None


def _validation_line(training: Training) -> str | None:
    metrics = _metrics(training)
    return f"validation: {metrics}" if metrics else None


def _problem(progress: JobProgress) -> str | None:
    """Why the job waits, else why its previous run ended early."""
    if progress["waiting_reason"]:
        return f"waiting: {progress['waiting_reason']}"
    training = progress["training"]
    if training["run_error"] and progress["state"] == "running":
        return f"the previous run ended early: {_first_line(training['run_error'])}"
    return None


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]
