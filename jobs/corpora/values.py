"""A value of JSON or of a CSV cell as an id, a label or a message of a chat.

A string stays as it is; a number is written as Python writes it (``1``, ``1.0``), a boolean as
``true`` or ``false``, an array or object as JSON. ``jobs.corpora.arrow_values`` converts Arrow's
types; ``jobs.corpora.conversion_examples`` is the table of all conversions, from which the tests
and docs/values.md are generated.
"""

from __future__ import annotations

import json

_BOOLEANS = {"True": "true", "TRUE": "true", "False": "false", "FALSE": "false"}
"""Spellings of booleans by pandas and by spreadsheets."""

SEPARATOR = "|"
_QUOTES = ("'", '"')


def id_text(value: object) -> str | None:
    """An id as text; null stays null. Raises ``RecursionError`` for a value nested too deep."""
    if value is None or isinstance(value, str):
        return value
    if type(value) is int:  # not a bool; by far the most common, and json.dumps is slow
        return str(value)
    return scalar_text(value) or json.dumps(value, ensure_ascii=False)


def scalar_text(value: object) -> str | None:
    """A string, number or boolean as text; ``None`` for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    return None


def label_name(text: str) -> str:
    """The name of a label: ``True`` in a CSV file is ``true`` in JSON and Parquet."""
    return _BOOLEANS.get(text, text)


def split_labels(text: str) -> list[object]:
    """The labels in one string: a JSON array, or names separated by ``|``.

    Nightshift's own CSV files have arrays. Raises ``ValueError`` for an array of quoted names that
    is not JSON (``['a', 'b']``, as Python writes it), which would silently be one label.
    """
    text = text.strip()
    if not text:
        return []
    if text.startswith("[") and text.endswith("]"):
        array = _array(text)
        if array is not None:
            return array
        if text[1:].lstrip().startswith(_QUOTES):
            raise ValueError('an array of labels must be JSON: ["a", "b"]')
    return [piece.strip() for piece in text.split(SEPARATOR)]


def message_text(value: object) -> str:
    """The content of a message: a string, or a list of text parts, which are joined.

    Raises ``ValueError`` for anything else, because a template would print Python's spelling of it.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(map(_is_text_part, value)):
        return "".join(part["text"] for part in value)
    raise ValueError(
        'content must be a string or a list of {"type": "text", "text": "..."}, '
        f"not {json_type_name(value)}"
    )


def json_type_name(value: object) -> str:
    """The value's type as JSON calls it."""
    if isinstance(value, list):
        return "an array with other parts" if value else "an empty array"
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
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, list) else None
