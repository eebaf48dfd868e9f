"""Conversations as training data: a list of messages, as in OpenAI's fine-tuning files.

    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]}

An assistant's message may have a ``weight``; 0 means that it is not learned. A row is kept as one
JSON text. Whether the model's chat template can render it shows only in training.
"""

from __future__ import annotations

import json

from jobs.corpora import values
from jobs.corpora.records import Broken
from jobs.row_codes import RowCode

DEFAULT_COLUMN = "messages"
"""The column of conversations that is read if the job names none."""

CONVERSATION = "\n"
"""The target of a row whose text is a whole conversation. No other target is only white space."""

ASSISTANT = "assistant"


def read(value: object, *, column: str) -> str | Broken:
    """The conversation as JSON, from a list of messages or from the JSON of one."""
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

    Null fields are dropped: Arrow has null for fields that only other messages have.
    """
    fields = value.items() if isinstance(value, dict) else ()
    message = {name: field for name, field in fields if field is not None}
    if not isinstance(message.get("role"), str) or "content" not in message:
        raise ValueError('each message must be {"role": "...", "content": "..."}')
    _check_weight(message)
    return {**message, "content": values.message_text(message["content"])}


def _check_weight(message: dict[str, object]) -> None:
    weight = message.get("weight", 1)
    if isinstance(weight, bool) or weight not in (0, 1):
        raise ValueError(f"the weight of a message must be 0 or 1, not {weight!r}")
    if "weight" in message and message["role"] != ASSISTANT:
        raise ValueError(f"only messages of the {ASSISTANT} have a weight")
