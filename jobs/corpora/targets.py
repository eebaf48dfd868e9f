"""What stands beside the text of a row, read from values of any type.

In a labelled corpus it is what a model should answer. A label, and a text to be written, is a
string or a number; several labels are an array of those, or a string with ``|`` between them. In a
corpus of pairs it is a second text, in one of prompts it may be settings, a JSON object. Which
column it is, ``jobs.corpora.columns`` decides.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from enum import StrEnum

from jobs.corpora import messages, values
from jobs.corpora.batches import LabelledRows, Rows
from jobs.corpora.records import Broken
from jobs.kinds import Task
from jobs.results.schemas import RowCode

MAX_LABEL = 500
"""Characters of one label; a longer one is a text in the wrong column."""

_KINDS: dict[type, str] = {list: "an array", dict: "an object"}


class Targets(StrEnum):
    """What kind of target each row of a corpus has."""

    LABEL = "label"  # one label
    LABELS = "labels"  # any number of labels, none too
    TEXT = "text"  # a text to be written
    COMPLETION = "completion"  # the same; a corpus without such a column is plain text
    PAIR = "second text"  # that is read with the first
    SETTINGS = "settings"  # of the row's generation; a row may have none
    MESSAGES = "messages"  # a whole conversation, which stands for the text as well


@dataclass(frozen=True)
class Target:
    """The column that was chosen, and what kind of values it has."""

    column: str
    kind: Targets

    def add(
        self, rows: Rows, line: int, text: str, value: object, row_id: str | None = None
    ) -> None:
        """Add a row with its text and this column's value, or the error that it is."""
        assert isinstance(rows, LabelledRows)
        if self.kind is Targets.MESSAGES:
            self._add_messages(rows, line, value, row_id)
            return
        found = read(value, self.kind, column=self.column)
        if isinstance(found, Broken):
            rows.fail(line, found.code, found.message, row_id)
        else:
            rows.add_pair(line, text, found, row_id)

    def _add_messages(
        self, rows: LabelledRows, line: int, value: object, row_id: str | None
    ) -> None:
        found = messages.read(value, column=self.column)
        if isinstance(found, Broken):
            rows.fail(line, found.code, found.message, row_id)
        else:
            rows.add_pair(line, found, messages.WHOLE, row_id)

    def add_from(
        self, rows: Rows, line: int, text: str, row: dict[str, object], row_id: str | None = None
    ) -> None:
        """The same for a row with named values, of which this column's may be missing."""
        if self.column in row:
            self.add(rows, line, text, row[self.column], row_id)
        else:
            self.add_absent(rows, line, text, row_id)

    def add_absent(self, rows: Rows, line: int, text: str, row_id: str | None = None) -> None:
        """Add a row that does not have the column at all: an error, unless it need not."""
        if self.kind is Targets.SETTINGS:
            self.add(rows, line, text, None, row_id)
        else:
            rows.fail(line, _missing(self.kind), f"the row has no {self.column[:100]!r}", row_id)


def no_rows(targets: Targets | None) -> Rows:
    """An empty batch, for rows with targets or without."""
    return Rows() if targets is None else LabelledRows()


def of(task: Task, *, multi_label: bool) -> Targets:
    """The kind of target that a task is trained on."""
    if task is Task.CLASSIFY:
        return Targets.LABELS if multi_label else Targets.LABEL
    return Targets.COMPLETION if task is Task.GENERATE else Targets.TEXT


def read(value: object, targets: Targets, *, column: str) -> str | Broken:
    """The value as a shard keeps it: a string, several labels as a JSON array of strings."""
    name = repr(column[:100])
    if targets is Targets.SETTINGS:
        return _settings(value, name)
    if value is None or _is_nan(value):
        return Broken(_missing(targets), f"{name} is null")
    if targets is Targets.LABELS:
        return _labels(value, name)
    return _one(value, targets, name)


def _one(value: object, targets: Targets, name: str) -> str | Broken:
    text = values.scalar(value)
    if text is None:
        hint = "; several labels need multi_label" if targets is Targets.LABEL else ""
        kind = _KINDS.get(type(value), "a value of another type")
        return Broken(RowCode.WRONG_TYPE, f"{name} must be one string or number, not {kind}{hint}")
    if not text or text.isspace():
        code = RowCode.EMPTY_TEXT if targets is Targets.PAIR else RowCode.MISSING_TARGET
        return Broken(code, f"{name} is empty")
    if targets is not Targets.LABEL:
        return text
    return _problem(text, name) or values.label(text)


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def labels(target: str) -> list[str]:
    """The labels of a target of the kind ``LABELS``."""
    found: list[str] = json.loads(target)
    return found


def _missing(targets: Targets) -> RowCode:
    of_the_text = targets in (Targets.PAIR, Targets.MESSAGES)
    return RowCode.MISSING_TEXT if of_the_text else RowCode.MISSING_TARGET


def _settings(value: object, name: str) -> str | Broken:
    """An object as JSON, and a string as it is: whoever generates checks what it says."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return "{}"
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and not any(
        isinstance(each, dict | list) for each in value.values()
    ):
        return json.dumps(value, ensure_ascii=False)
    return Broken(RowCode.BAD_SETTINGS, f"{name} must be a JSON object of plain values")


def _labels(value: object, name: str) -> str | Broken:
    if isinstance(value, str):
        try:
            value = values.several(value)
        except ValueError as error:
            return Broken(RowCode.WRONG_TYPE, f"{name}: {error}")
    if not isinstance(value, list):
        value = [value]
    found: dict[str, None] = {}  # in order, each once
    for entry in value:
        text = None if _is_nan(entry) else values.scalar(entry)
        if text is None or not text or text.isspace():
            message = f"each label in {name} must be a string or a number, and not empty"
            return Broken(RowCode.WRONG_TYPE, message)
        if problem := _problem(text, name):
            return problem
        found[values.label(text)] = None
    return json.dumps(list(found), ensure_ascii=False)


def _problem(label: str, name: str) -> Broken | None:
    """Why a text cannot be a label's name."""
    if len(label) > MAX_LABEL:
        message = f"a label in {name} must be at most {MAX_LABEL} characters, not {len(label):,}"
        return Broken(RowCode.WRONG_TYPE, message)
    if "\0" in label:
        return Broken(RowCode.WRONG_TYPE, f"a label in {name} must not contain the character NUL")
    return None
