"""What one value of JSON or of a CSV cell becomes as an id, a label or a part of a chat.

A string stays as it is; a number is written as Python writes it (``1``, ``1.0``), a truth value as
``true`` or ``false``, an array or object as JSON. What Arrow's types become beside these is in
``jobs.corpora.arrow_values``; the table of all, which the tests and docs/values.md are made of, is
``jobs.corpora.conversions``.
"""

from __future__ import annotations

import json

_TRUTH = {"True": "true", "TRUE": "true", "False": "false", "FALSE": "false"}
"""Spellings of truth values by pandas and by spreadsheets."""

SEPARATOR = "|"
_QUOTES = ("'", '"')


def id_text(value: object) -> str | None:
    """An id as text; null stays null. Raises ``RecursionError`` for what is nested too deep."""
    if value is None or isinstance(value, str):
        return value
    if type(value) is int:  # not a bool; much the most common, and json.dumps is slow
        return str(value)
    return scalar(value) or json.dumps(value, ensure_ascii=False)


def scalar(value: object) -> str | None:
    """A string, number or truth value as text; ``None`` for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    return None


def label(text: str) -> str:
    """The name of a label: ``True`` of a CSV file is the ``true`` of JSON and of Parquet."""
    return _TRUTH.get(text, text)


def several(text: str) -> list[object]:
    """The labels that one string holds: a JSON array, or names with ``|`` between them.

    Nightshift's own CSV files hold arrays. Raises ``ValueError`` for an array of quoted names that
    is no JSON (``['a', 'b']``, as Python writes it): it would be one label in silence.
    """
    text = text.strip()
    if not text:
        return []
    if text.startswith("[") and text.endswith("]"):
        found = _array(text)
        if found is not None:
            return found
        if text[1:].lstrip().startswith(_QUOTES):
            raise ValueError('an array of labels must be JSON: ["a", "b"]')
    return [piece.strip() for piece in text.split(SEPARATOR)]


def content(value: object) -> str:
    """The content of a chat's message: a string, or parts of text, which are joined.

    Raises ``ValueError`` for anything else, because a template would print Python's spelling of it.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(map(_is_text_part, value)):
        return "".join(part["text"] for part in value)
    raise ValueError(
        'content must be a string or a list of {"type": "text", "text": "..."}, '
        f"not {kind(value)}"
    )


def kind(value: object) -> str:
    """What JSON calls the value."""
    if isinstance(value, list):
        return "an array that holds something else" if value else "an empty array"
    names: dict[type, str] = {
        type(None): "null",
        bool: "true or false",
        int: "a number",
        float: "a number",
        dict: "an object",
    }
    return names[type(value)]


def _is_text_part(part: object) -> bool:
    return (
        isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
    )


def _array(text: str) -> list[object] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) else None
