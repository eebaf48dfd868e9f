"""The seven nights: what arrives in each of them, and how it is meant to go. No night repeats rows.

A night brings labelled rows as objects under a dated prefix, ``incoming/day=2026-12-01/``, and rows
whose labels people have checked in a table of Postgres.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from enum import StrEnum

FIRST_DAY = date(2026, 12, 1)

FIRST_ROWS = 80
"""Rows that the first version is trained on, before the first night."""

CHECKED_ROWS = 40
"""Rows that a night adds to the table."""


class Course(StrEnum):
    """How a night goes."""

    ORDINARY = "ordinary"
    EMPTY = "empty"  # nothing arrives
    FLIPPED = "flipped"  # most labels are wrong
    REPAIRED = "repaired"  # and the labels of the night before are corrected
    KILLED = "killed"  # processes are killed in the middle
    OVERLAPPED = "overlapped"  # the next night is due while its fine-tune runs
    OVERLAPPING = "overlapping"  # that next night


@dataclass(frozen=True, kw_only=True)
class Night:
    """One night. ``number`` counts from 1, as fires do."""

    number: int
    course: Course
    story: str
    parts: tuple[int, ...] = (20, 140)  # rows of each object
    checked_rows: int = CHECKED_ROWS

    @property
    def day(self) -> str:
        """The folder of its objects."""
        return f"day={FIRST_DAY.replace(day=FIRST_DAY.day + self.number - 1).isoformat()}"

    @property
    def objects(self) -> dict[str, int]:
        """Rows of each of its objects, by the name below ``incoming``."""
        return {f"{self.day}/part-{place}.jsonl": rows for place, rows in enumerate(self.parts)}

    @property
    def flipped(self) -> str | None:
        """The object whose labels are wrong; ``None``: there is none."""
        return list(self.objects)[-1] if self.course is Course.FLIPPED else None


NIGHTS = (
    Night(number=1, course=Course.ORDINARY, story="an ordinary night"),
    Night(number=2, course=Course.EMPTY, story="nothing arrives", parts=(), checked_rows=0),
    Night(
        number=3,
        course=Course.FLIPPED,
        story="the export gives the labels of one object to the wrong rows",
    ),
    Night(
        number=4,
        course=Course.REPAIRED,
        story="an ordinary night; in the morning somebody has corrected that object",
    ),
    Night(
        number=5,
        course=Course.KILLED,
        story="control, the training host and the worker are killed in the middle",
        parts=(20, 460),
    ),
    Night(
        number=6,
        course=Course.OVERLAPPED,
        story="its fine-tune is not done when the next night is due",
    ),
    Night(number=7, course=Course.OVERLAPPING, story="that night, which has to wait"),
)

ROWS = FIRST_ROWS + sum(sum(night.parts) + night.checked_rows for night in NIGHTS)
"""Labelled rows of the whole example."""
