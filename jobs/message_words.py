"""What messages say to people who watch the queue: the one place where it is written; pure.

Celery shows the words as the arguments of a task. They end with the id of the job, by which Flower
leads from a task to its job and back.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

SEPARATOR = " · "

LONGEST_PART = 80
"""Characters of a name or of a model; of longer ones the end is shown."""

_JOB = re.compile(r"(.*?)(?: of | · | |^)(job_\w+)", re.DOTALL)


@dataclass(frozen=True)
class MessageWords:
    """The words of a message, and apart from them the job that it is about."""

    text: str
    job_id: str | None  # null: they name none


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The job of a message."""

    job_id: str
    kind: str
    model: str | None  # that it uses, or that a fine-tune makes; null: there is none


def chunk(of: Subject, *, first_row: int, rows: int, number: int | None, chunks: int | None) -> str:
    """``chunk 17 of 240 · classify · news@3 · rows 16,000 to 16,999 · job_...``.

    ``number``: its place in the job; ``None``: not known. ``chunks``: of the job; ``None``: it is
    being planned.
    """
    place = "chunk" if number is None else f"chunk {number:,}"
    if number is not None and chunks is not None and chunks >= number:
        place += f" of {chunks:,}"
    last = first_row + rows - 1
    covered = f"row {first_row:,}" if rows == 1 else f"rows {first_row:,} to {last:,}"
    return _joined(place, of.kind, of.model, covered, of.job_id)


def step(name: str, of: Subject) -> str:
    """``plan · classify · news@3 · job_...``."""
    return _joined(name, of.kind, of.model, of.job_id)


def rank(of: Subject, *, number: int, machines: int, run: int) -> str:
    """``rank 0 of 2 · run 3 · finetune news · job_...``."""
    subject = f"{of.kind} {_part(of.model)}" if of.model else of.kind
    return SEPARATOR.join((f"rank {number} of {machines}", f"run {run}", subject, of.job_id))


def read(words: str) -> MessageWords:
    """The words without the id at their end; those of earlier versions too."""
    match = _JOB.fullmatch(words.strip())
    if match is None:
        return MessageWords(words, None)
    return MessageWords(match[1] or match[2], match[2])


def _joined(*parts: str | None) -> str:
    return SEPARATOR.join(_part(part) for part in parts if part)


def _part(text: str) -> str:
    """In one line, of characters that a message may have."""
    plain = "".join(each if each.isprintable() else "?" for each in text)
    return plain if len(plain) <= LONGEST_PART else f"…{plain[1 - LONGEST_PART :]}"
