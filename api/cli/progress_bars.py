"""Progress on a terminal: of transfers and of jobs. It is drawn on stderr; results go to stdout."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TransferSpeedColumn,
)

from api.cli import console, job_events, outcomes, signals, tables, training_progress
from api.cli.failures import Failure
from api.cli.tables import Column
from api.client import Client
from jobs.models.signatures import Reading

Job = dict[str, Any]


def is_wanted(watch: bool | None) -> bool:  # noqa: FBT001 - as the option has it
    """Whether a command shows progress: as the option has it, else on a terminal."""
    return Console(stderr=True).is_terminal if watch is None else watch


def job(client: Client, job_id: str) -> Job:
    """Show a job until it has ended; the job."""
    console = Console(stderr=True)
    if not console.is_terminal:
        return _plain(client, job_id)
    trains = client.get(job_id)["training"] is not None
    return (_training if trains else _live)(client, job_id, console)


@contextmanager
def leaving(job_id: str) -> Iterator[None]:
    """Where Ctrl-C or SIGTERM ends this block, say that the job goes on, and what can be done."""
    try:
        yield
    except KeyboardInterrupt as stop:
        raise Failure(
            f"{job_id} goes on on the server; watch it with `nightshift jobs watch {job_id}`, or "
            f"stop it with `nightshift jobs cancel {job_id}`",
            code=signals.code(stop),
        ) from None


def summary(found: Job) -> None:
    """What a person wants to know of a job that has ended."""
    for name, words in reading(found):
        console.line(f"{name}: {words}")
    if found["training"]:
        ended = outcomes.ended(found["state"])
        console.line(f"{found['id']} {ended}: {training_progress.summary(found)}")
        rejected(found)
        warned(found)
        return
    rows = found["rows"]
    console.line(
        f"{found['id']} {outcomes.ended(found['state'])}: {console.number(rows['done'])} rows, "
        f"{console.number(rows['failed'])} failed, {_speed(found)}"
    )
    if found["agreement"]:
        console.line(agreement(found["agreement"]))
    if found["histogram"]:
        tables.histogram(found["histogram"], rows=rows["done"])
    findings(found)


def findings(found: Job) -> None:
    """Which rows failed, by code with one example each, and what makes the others doubtful."""
    if found["row_errors"]:
        console.line()
        tables.table(
            ("ERROR", "ROWS", Column("FIRST", cut=1), Column("MESSAGE", cut=2)),
            [
                (
                    each["code"],
                    console.number(each["rows"]),
                    place(each["example"]),
                    each["example"]["message"],
                )
                for each in found["row_errors"]
            ],
        )
    warned(found)


def rejected(found: Job) -> None:
    """Rows of labelled corpora that were left out: how many, and the first of them with reasons."""
    splits = (found["training"] or {"splits": {}})["splits"]
    for name, split in splits.items():
        if not split["rejected"]:
            continue
        console.line()
        shown = len(split["examples"])
        console.line(
            f"{console.number(split['rejected'])} {name} rows were left out"
            + (f", the first {shown} of them:" if shown < split["rejected"] else ":")
        )
        tables.table(
            ("LINE", "ERROR", "MESSAGE"),
            [(_line(each), each["code"], each["message"]) for each in split["examples"]],
        )


def warned(found: Job) -> None:
    """What should be looked into before the results are trusted."""
    for warning in found["warnings"]:
        console.line()
        console.line(f"warning: {warning['message']} ({warning['code']})")


def place(example: Job) -> str:
    """Where a row stands, as its owner finds it: its line, and its id if it has one."""
    line, name = example["line"], example["id"]
    where = f"row {console.number(example['row'])}" if line is None else f"line {line}"
    where += f" of {example['source']}" if example.get("source") else ""
    return where if name is None else f"{where} ({name})"


def _line(example: Job) -> str:
    """The line of a rejected row, with the object that it is of where there are several."""
    line, source = console.number(example["line"]), example.get("source")
    return f"{line} of {source}" if source else line


def quality(counts: Job) -> str:
    """How much of the rows the model could read, and of how many its labels are apart."""
    return ", ".join(
        f"{console.share(counts[count], of=counts[of])} {words}"
        for count, of, words in (
            ("tokens_unknown", "tokens", "of the tokens unknown"),
            ("rows_truncated", "rows", "of the rows truncated"),
            ("rows_near_tie", "rows", "near-ties"),
        )
    )


def reading(found: Job) -> list[tuple[str, str]]:
    """How the job's model was trained to read rows, if that is known."""
    told = found["reading"] and Reading.model_validate(found["reading"])
    return [("reading", told.words)] if told else []


def agreement(counts: dict[str, int]) -> str:
    """How many labels int8 left as they are, by the rows that were computed both ways."""
    share = counts["equal"] / counts["rows"]
    return f"int8: {share:.1%} of {console.number(counts['rows'])} rows agree with float32"


def _speed(found: Job) -> str:
    """Rows per second; and tokens, read and written, if those are rows like all so far."""
    rate, tokens, rows = found["rate"], found["usage"]["tokens"], found["rows"]["done"]
    if not rate or not tokens:
        return console.rate(rate)
    return f"{console.rate(rate)}, {console.number(rate * tokens / rows)} tokens/s"


@contextmanager
def transfer(label: str, path: Path) -> Iterator[Callable[[int, int], None]]:
    """A bar for one file; call what it gives with the bytes so far and in all."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bars:
        task = bars.add_task(f"{label} {path.name}", total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def _live(client: Client, job_id: str, console: Console) -> Job:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[counts]}"),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task(job_id, total=None, counts="")
        for progress in job_events.progress(client, job_id, report=_above(bars.console)):
            _draw(bars, task, progress)
    return client.get(job_id)


def _training(client: Client, job_id: str, console: Console) -> Job:
    with training_progress.View(console) as view:
        for progress in job_events.progress(client, job_id, report=_above(console)):
            view.draw(progress)
    return client.get(job_id)


def _above(console: Console) -> Callable[[str], None]:
    """Prints lines above the bars, where they stay."""
    return lambda line: console.print(line, markup=False, highlight=False)


def _draw(bars: Progress, task: TaskID, progress: Job) -> None:
    rows = progress["rows"]
    counts = f"{console.number(rows['done'])}/{console.number(rows['total'])}"
    if rows["under_way"]:
        counts += f" (+{console.number(rows['under_way'])})"
    if progress["rate"]:
        counts += f" {_speed(progress)}"
    if progress["eta_seconds"] is not None:
        counts += f" eta {console.duration(progress['eta_seconds'])}"
    if rows["failed"]:
        codes = ", ".join(each["code"] for each in progress["row_errors"])
        counts += f" [red]{console.number(rows['failed'])} failed ({codes})[/red]"
    bars.update(
        task,
        description=_words(progress),
        completed=rows["done"] + rows["under_way"],
        total=rows["total"],
        counts=counts,
    )


def _plain(client: Client, job_id: str) -> Job:
    """One line for every change of what it is doing, and for what is new to fail; for logs."""
    said = {""}
    last = ""
    report = functools.partial(_note, job_id)
    for progress in job_events.progress(client, job_id, report=report):
        words = _words(progress)
        news = [each for each in _failures(progress) if each not in said]
        for line in [words] * (words != last) + news:
            report(line)
        last, said = words, said.union(news)
    return client.get(job_id)


def _note(job_id: str, line: str) -> None:
    console.note(f"{job_id} {line}")


def _failures(progress: Job) -> list[str]:
    """A line for each code of error rows, which is the same while their number grows."""
    return [
        f"has failed rows, the first on {place(each['example'])}: "
        f"{each['example']['message']} ({each['code']})"
        for each in progress["row_errors"]
    ]


def _words(progress: Job) -> str:
    if progress["training"]:
        return training_progress.status_line(progress)
    reason = progress["waiting_reason"]
    return f"{progress['state']}: {reason}" if reason else str(progress["state"])
