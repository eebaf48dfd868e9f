"""Targets: the value beside the text of a row, converted from any type.

In a labelled corpus the target is the expected output of the model. A label, or a text to generate,
is a string or a number. Several labels are an array of those, or a string with ``|`` between them.
In a corpus of pairs the target is the second text; in a corpus of prompts it may be settings, a
JSON object. ``jobs.corpora.columns`` decides which column holds it.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from enum import StrEnum

from jobs.corpora import message_lists, values
from jobs.corpora.batches import BatchBuilder, LabelledBatchBuilder
from jobs.corpora.records import Broken
from jobs.kinds import Task
from jobs.row_codes import RowCode

MAX_LABEL_CHARACTERS = 500
"""A longer label is a text in the wrong column."""

_TYPE_NAMES: dict[type, str] = {list: "an array", dict: "an object"}


class TargetKind(StrEnum):
    """What the target of each row of a corpus is."""

    LABEL = "label"  # one label
    LABELS = "labels"  # any number of labels, even none
    TEXT = "text"  # a text to generate
    COMPLETION = "completion"  # the same; a corpus without such a column is plain text
    PAIR = "second text"  # read together with the first
    SETTINGS = "settings"  # of the row's generation; a row may have none
    MESSAGES = "messages"  # a whole conversation, which is the text as well


@dataclass(frozen=True)
class Target:
    """The target column and its kind."""

    column: str
    kind: TargetKind

    def add(
        self, rows: BatchBuilder, line: int, text: str, value: object, row_id: str | None = None
    ) -> None:
        """Add a row with its text and this column's value, or with the value's error."""
        assert isinstance(rows, LabelledBatchBuilder)
        if self.kind is TargetKind.MESSAGES:
            self._add_messages(rows, line, value, row_id)
            return
        target = read(value, self.kind, column=self.column)
        if isinstance(target, Broken):
            rows.add_error(line, target.code, target.message, row_id)
        else:
            rows.add_pair(line, text, target, row_id)

    def _add_messages(
        self, rows: LabelledBatchBuilder, line: int, value: object, row_id: str | None
    ) -> None:
        conversation = message_lists.read(value, column=self.column)
        if isinstance(conversation, Broken):
            rows.add_error(line, conversation.code, conversation.message, row_id)
        else:
            rows.add_pair(line, conversation, message_lists.CONVERSATION, row_id)

    def add_from(
        self,
        rows: BatchBuilder,
        line: int,
        text: str,
        row: dict[str, object],
        row_id: str | None = None,
    ) -> None:
        """The same for a row of named values, which may lack this column."""
        if self.column in row:
            self.add(rows, line, text, row[self.column], row_id)
        else:
            self.add_absent(rows, line, text, row_id)

    def add_absent(
        self, rows: BatchBuilder, line: int, text: str, row_id: str | None = None
    ) -> None:
        """Add a row without the column: an error row, unless settings are missing."""
        if self.kind is TargetKind.SETTINGS:
            self.add(rows, line, text, None, row_id)
        else:
            message = f"the row has no {self.column[:100]!r}"
            rows.add_error(line, _missing_code(self.kind), message, row_id)


def batch_builder(targets: TargetKind | None) -> BatchBuilder:
    """A builder for rows with targets or without."""
    return BatchBuilder() if targets is None else LabelledBatchBuilder()


def target_kind(task: Task, *, multi_label: bool) -> TargetKind:
    """The kind of target that a task is trained on."""
    if task is Task.CLASSIFY:
        return TargetKind.LABELS if multi_label else TargetKind.LABEL
    return TargetKind.COMPLETION if task is Task.GENERATE else TargetKind.TEXT


def read(value: object, targets: TargetKind, *, column: str) -> str | Broken:
    """The value as stored in a shard: a string; several labels as a JSON array of strings."""
    name = repr(column[:100])
    if targets is TargetKind.SETTINGS:
        return _settings(value, name)
    if value is None or _is_nan(value):
        return Broken(_missing_code(targets), f"{name} is null")
    if targets is TargetKind.LABELS:
        return _labels(value, name)
    return _scalar(value, targets, name)


def _scalar(value: object, targets: TargetKind, name: str) -> str | Broken:
    text = values.scalar_text(value)
    if text is None:
        hint = "; several labels need multi_label" if targets is TargetKind.LABEL else ""
        given = _TYPE_NAMES.get(type(value), "a value of another type")
        return Broken(RowCode.WRONG_TYPE, f"{name} must be one string or number, not {given}{hint}")
    if not text or text.isspace():
        code = RowCode.EMPTY_TEXT if targets is TargetKind.PAIR else RowCode.MISSING_TARGET
        return Broken(code, f"{name} is empty")
    if targets is not TargetKind.LABEL:
        return text
    return _invalid_label(text, name) or values.label_name(text)


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def labels(target: str) -> list[str]:
    """The labels of a target of the kind ``LABELS``."""
    names: list[str] = json.loads(target)
    return names


def _missing_code(targets: TargetKind) -> RowCode:
    is_text = targets in (TargetKind.PAIR, TargetKind.MESSAGES)
    return RowCode.MISSING_TEXT if is_text else RowCode.MISSING_TARGET


def _settings(value: object, name: str) -> str | Broken:
    """An object as JSON, a string as it is; the engine checks the settings."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return "{}"
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and not any(
        isinstance(setting, dict | list) for setting in value.values()
    ):
        return json.dumps(value, ensure_ascii=False)
    return Broken(RowCode.BAD_SETTINGS, f"{name} must be a JSON object of plain values")


def _labels(value: object, name: str) -> str | Broken:
    if isinstance(value, str):
        try:
            value = values.split_labels(value)
        except ValueError as error:
            return Broken(RowCode.WRONG_TYPE, f"{name}: {error}")
    if not isinstance(value, list):
        value = [value]
    names: dict[str, None] = {}  # in order, without duplicates
    for entry in value:
        text = None if _is_nan(entry) else values.scalar_text(entry)
        if text is None or not text or text.isspace():
            message = f"each label in {name} must be a string or a number, and not empty"
            return Broken(RowCode.WRONG_TYPE, message)
        if invalid := _invalid_label(text, name):
            return invalid
        names[values.label_name(text)] = None
    return json.dumps(list(names), ensure_ascii=False)


def _invalid_label(label: str, name: str) -> Broken | None:
    """Why a text cannot be a label; ``None`` if it can."""
    if len(label) > MAX_LABEL_CHARACTERS:
        limit = f"at most {MAX_LABEL_CHARACTERS} characters"
        message = f"a label in {name} must be {limit}, not {len(label):,}"
        return Broken(RowCode.WRONG_TYPE, message)
    if "\0" in label:
        return Broken(RowCode.WRONG_TYPE, f"a label in {name} must not contain the character NUL")
    return None
