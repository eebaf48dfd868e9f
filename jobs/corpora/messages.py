"""Conversations as training data: a list of messages, as in OpenAI's fine-tuning files.

    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]}

An assistant's message may have a ``weight``: 0 means that it is not learned. A row is kept as one
JSON text; whether the model's chat template can render it is found out when it is trained on.
"""

from __future__ import annotations

import json

from jobs.corpora import values
from jobs.corpora.records import Broken
from jobs.results.schemas import RowCode

COLUMN = "messages"
"""Where conversations stand when nobody says where."""

WHOLE = "\n"
"""The target of a row whose text is a whole conversation; others are never white space alone."""

ASSISTANT = "assistant"


def read(value: object, *, column: str) -> str | Broken:
    """The conversation as JSON, from a list of messages or the same as a JSON text."""
    name = repr(column[:100])
    if value is None:
        return Broken(RowCode.MISSING_TEXT, f"{name} is null")
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return Broken(RowCode.BAD_CHAT, f"{name} must be a list of messages, not a text")
    if not isinstance(value, list) or not value:
        return Broken(RowCode.BAD_CHAT, f"{name} must be a list of messages, and not empty")
    try:
        messages = [_message(message) for message in value]
    except ValueError as problem:
        return Broken(RowCode.BAD_CHAT, f"{name}: {problem}")
    if not any(m["role"] == ASSISTANT and m.get("weight", 1) for m in messages):
        return Broken(RowCode.BAD_CHAT, f"{name} has no message of the assistant to learn")
    return json.dumps(messages, ensure_ascii=False)


def _message(value: object) -> dict[str, object]:
    """A message with its content as one text. Raises ``ValueError``.

    Arrow has null for fields that only other messages have.
    """
    known = value if isinstance(value, dict) else {}
    found = {name: field for name, field in known.items() if field is not None}
    if not isinstance(found.get("role"), str) or "content" not in found:
        raise ValueError('each message must be {"role": "...", "content": "..."}')
    _check_weight(found)
    return {**found, "content": values.content(found["content"])}


def _check_weight(message: dict[str, object]) -> None:
    weight = message.get("weight", 1)
    if isinstance(weight, bool) or weight not in (0, 1):
        raise ValueError(f"the weight of a message must be 0 or 1, not {weight!r}")
    if "weight" in message and message["role"] != ASSISTANT:
        raise ValueError(f"only messages of the {ASSISTANT} have a weight")
