"""The work of the ledger that a task of Flower is about, by the words of its message; pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from jobs import message_words
from jobs.message_words import SEPARATOR
from jobs.states import JobStep

_ROWS = re.compile(r"rows? (\d[\d,]*)(?: to [\d,]+)?")
_RUN = re.compile(r"run (\d+)")


@dataclass(frozen=True)
class ChunkTask:
    """A chunk, by its first row."""

    job_id: str
    first_row: int


@dataclass(frozen=True)
class StepTask:
    """A job that is planned or finalized."""

    job_id: str
    step: JobStep


@dataclass(frozen=True)
class RankTask:
    """A rank of a run."""

    job_id: str
    run: int


TaskReference = ChunkTask | StepTask | RankTask


def read(name: str, words: str) -> TaskReference | None:
    """``name`` and ``words`` of the task; ``None``: they name no work."""
    found = message_words.read(words)
    if found.job_id is None:
        return None
    parts = found.text.split(SEPARATOR)
    if name == "chunk" and (rows := _ROWS.fullmatch(parts[-1])):
        return ChunkTask(found.job_id, int(rows[1].replace(",", "")))
    if name == "rank" and len(parts) > 1 and (run := _RUN.fullmatch(parts[1])):
        return RankTask(found.job_id, int(run[1]))
    if name in set(JobStep):
        return StepTask(found.job_id, JobStep(name))
    return None
