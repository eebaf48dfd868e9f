"""A job as a row of `nightshift jobs list`."""

from __future__ import annotations

from typing import Any

from api.cli import console, training_progress
from api.cli.tables import WHOLE, Column

Job = dict[str, Any]

COLUMNS = (
    Column("JOB"),
    Column("STATE"),
    Column("KIND", cut=1),
    Column("DONE", cut=2),
    Column("FAILED", cut=5),
    Column("NAME", cut=4, least=10),
    Column("WHY", cut=3, least=16),
    Column("CREATED", cut=6, least=WHOLE),
    Column("CORPUS", cut=7, least=WHOLE),
    Column("RATE", cut=8),
)

INPUT_COLUMNS = (
    Column("SPLIT", cut=3),
    Column("NAME", least=20),
    Column("ROWS"),
    Column("SIZE", cut=1),
    Column("SHA256", cut=2),
)
"""Of `nightshift jobs inputs`."""

LONGEST_NAME = 200


def row(job: Job) -> tuple[Any, ...]:
    """What stands in the columns."""
    done, failed, rate = _done(job)
    return (
        job["id"],
        job["state"],
        job["kind"],
        done,
        failed,
        job["name"],
        _why(job),
        console.moment(job["created_at"]),
        _corpus(job),
        rate,
    )


def input_row(found: Job) -> tuple[Any, ...]:
    """An object that a job reads."""
    name = found["name"] if found["filename"] is None else f"{found['name']} {found['filename']}"
    size = console.size(found["bytes"])
    return found["split"], name, console.number(found["rows"]), size, found["sha256"]


def part_of_name(text: str) -> str:
    """What a name is searched for. Raises ``ValueError`` for what no name has."""
    if not 0 < len(text) <= LONGEST_NAME or "\0" in text or not _is_text(text):
        raise ValueError(f"must be 1 to {LONGEST_NAME} characters of a job's name")
    return text


def _why(job: Job) -> str | None:
    """Why it ended without success, else why it waits."""
    error = job["error"]
    return f"{error['code']}: {error['message']}" if error else job["waiting_reason"]


def _corpus(job: Job) -> str | None:
    corpus = job["spec"].get("corpus") or {}
    if sources := corpus.get("sources"):
        return sources[0] if len(sources) == 1 else f"{sources[0]} and {len(sources) - 1} more"
    if tag := corpus.get("tag"):
        return f"tag:{tag}"
    if sql := corpus.get("sql"):
        return f"sql:{sql['source']}"
    found: str | None = corpus.get("uri") or corpus.get("file")
    return found


def _done(job: Job) -> tuple[str, str, str]:
    """How much is done and has failed, and how fast: rows, or steps of training."""
    if job["training"]:
        training = job["training"]
        return training_progress.done(training), "-", training_progress.rate(training) or "-"
    rows = job["rows"]
    return (
        f"{console.number(rows['done'])}/{console.number(rows['total'])}",
        console.number(rows["failed"]),
        console.rate(job["rate"]),
    )


def _is_text(text: str) -> bool:
    return not any("\ud800" <= each <= "\udfff" for each in text)
