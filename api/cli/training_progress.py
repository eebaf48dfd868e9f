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


class View:
    """Four lines that are drawn over and over; use it as a context."""

    def __init__(self, console: Console) -> None:
        """``console``: a terminal."""
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[counts]}"),
            console=console,
        )
        self._task = self._bars.add_task("", total=None, counts="")
        self._live = Live(self._bars, console=console, transient=True, refresh_per_second=8)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def draw(self, progress: Job) -> None:
        """Show the job as it is now."""
        training = progress["training"]
        done, total = _bar(training)
        self._bars.update(
            self._task,
            description=escape(_doing(progress)),
            completed=done,
            total=total,
            counts=_counts(training),
        )
        below = (_numbers(training), _evaluation(training), _trouble(progress))
        lines = [Text(f"  {line}", overflow="fold") for line in below if line]
        self._live.update(Group(self._bars, *lines))


def words(progress: Job) -> str:
    """What the job does, in a line that changes only when there is news."""
    said = (_doing(progress), _evaluation(progress["training"]), _trouble(progress))
    return "; ".join(part for part in said if part)


def done(training: Job) -> str:
    """Steps done, of those known; of an evaluation job, which has none, rows."""
    evaluated = training["evaluated"]
    if training["steps_total"] is None and evaluated:
        return f"{_of(evaluated['rows'], evaluated['rows_total'])} rows"
    return f"{_of(training['step'], training['steps_total'])} steps"


def _of(done: int, total: int | None) -> str:
    return f"{console.number(done)}/{console.number(total)}"


def _bar(training: Job) -> tuple[int, int | None]:
    """What the bar shows: the evaluation under way, else the steps."""
    evaluated = training["evaluated"]
    if evaluated and evaluated["under_way"]:
        return evaluated["rows"], evaluated["rows_total"]
    return training["step"], training["steps_total"]


def facts(job: Job) -> list[tuple[str, Any]]:
    """What ``jobs show`` says of a training job; ``None`` where there is nothing to say."""
    training, output = job["training"], job["output"] or {}
    splits = (
        f"{console.number(split['rows'])} {name}"
        + (f" ({console.number(split['rejected'])} rejected)" if split["rejected"] else "")
        for name, split in training["splits"].items()
    )
    return [
        ("rows", ", ".join(splits) or None),
        ("run", _run(training)),
        ("phase", training["phase"]),
        ("done", done(training)),
        ("evaluated", _evaluated(training)),
        ("rate", rate(training)),
        ("numbers", _numbers(training)),
        ("evaluation", _measured(training)),
        ("runs lost", training["faults"] or None),
        ("runs crashed", training["errors"] or None),
        ("last run", training["run_error"]),
        ("registered", output.get("model")),
    ]


def summary(job: Job) -> str:
    """How far a job that has ended came."""
    training = job["training"]
    evaluated = training["evaluated"]
    said = f"{console.number(training['step'])} steps"
    if training["steps_total"] is None and evaluated:
        said = f"{console.number(evaluated['rows'])} rows"
    if pace := rate(training):
        said += f", {pace}"
    runs = training["run"] or 0
    return f"{said}, {runs} runs" if runs > 1 else said


def rate(training: Job) -> str | None:
    """Steps per second, or rows of an evaluation job; ``None``: not known."""
    value = training["rate"]
    if not value:
        return None
    unit = "rows/s" if training["steps_total"] is None else "steps/s"
    return f"{value:,.1f} {unit}" if value >= 1 else f"{value:.2g} {unit}"


def _evaluated(training: Job) -> str | None:
    """Rows of the evaluation under way."""
    evaluated = training["evaluated"]
    if not evaluated or not evaluated["under_way"]:
        return None
    return f"{_of(evaluated['rows'], evaluated['rows_total'])} rows"


def _doing(progress: Job) -> str:
    training = progress["training"]
    live = training["state"] in {"forming", "running"}
    if progress["state"] != "running" or not live:
        return str(progress["state"])
    return ", ".join(filter(None, (training["phase"] or training["state"], _run(training))))


def _run(training: Job) -> str | None:
    if training["run"] is None:
        return None
    machines = training["machines"]
    return f"run {training['run']} on {machines} machine{'s' if machines > 1 else ''}"


def _counts(training: Job) -> str:
    if training["run"] is None:
        return ""
    parts = [done(training)]
    if (rows := _evaluated(training)) and training["steps_total"] is not None:
        parts.append(f"evaluated {rows}")
    if (pace := rate(training)) and training["state"] == "running":
        parts.append(pace)
    if training["eta_seconds"] is not None:
        parts.append(f"eta {console.duration(training['eta_seconds'])}")
    return "  ".join(parts)


def _numbers(training: Job) -> str | None:
    parts = []
    if training["loss"] is not None:
        parts.append(f"loss {reports.number(training['loss'])}")
    if training["learning_rate"] is not None:
        parts.append(f"learning rate {training['learning_rate']:.3g}")
    if training["samples_per_second"] is not None:
        parts.append(f"{training['samples_per_second']:,.0f} samples/s")
    return ", ".join(parts) or None


def _measured(training: Job) -> str | None:
    return reports.metrics(training["evaluation"]) or None


def _evaluation(training: Job) -> str | None:
    measured = _measured(training)
    return f"validation: {measured}" if measured else None


def _trouble(progress: Job) -> str | None:
    """Why it waits, else why the run before this one ended."""
    if progress["waiting_reason"]:
        return f"waits because {progress['waiting_reason']}"
    training = progress["training"]
    if training["run_error"] and progress["state"] == "running":
        return f"the run before ended early: {_first_line(training['run_error'])}"
    return None


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]
