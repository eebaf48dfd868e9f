"""Celery's remote control, cut down to questions: workers take no orders from the broker; pure.

Flower and `celery inspect` ask workers what they do. Commands that end, slow down or redirect a
worker are refused, and so is a pattern of hosts: a regular expression can take for ever.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from workers.broker.envelope import Reason, Refused

LONGEST = 64 * 2**10

QUESTIONS = frozenset(
    (
        *("active", "active_queues", "conf", "enable_events", "ping", "query_task"),
        *("registered", "report", "reserved", "revoked", "scheduled", "stats"),
    )
)
"""The commands that a worker answers; ``enable_events`` only makes it send what Flower shows."""


def vetted(raw: bytes) -> bytes:
    """The question in a command, without anything else. Raises ``Refused``."""
    if len(raw) > LONGEST:
        raise Refused(Reason.TOO_LONG, f"the command has more than {LONGEST:,} bytes")
    try:
        body = json.loads(base64.b64decode(json.loads(raw)["body"], validate=True))
        command = _command(body)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Refused(Reason.MALFORMED, "the command cannot be read") from None
    if command["method"] not in QUESTIONS:
        raise Refused(Reason.NOT_OFFERED, f"workers answer only {', '.join(sorted(QUESTIONS))}")
    return json.dumps(_envelope(command)).encode()


def _command(body: dict[str, Any]) -> dict[str, Any]:
    """Raises ``TypeError`` for a field that cannot be right."""
    destination, reply_to = body.get("destination"), body.get("reply_to")
    return {
        "method": _text(body["method"]),
        "arguments": _arguments(body.get("arguments") or {}),
        "destination": None if destination is None else [_text(each) for each in destination],
        "pattern": None,
        "matcher": None,
        "ticket": None if body.get("ticket") is None else _text(body["ticket"]),
        "reply_to": reply_to
        and {name: _text(reply_to[name]) for name in ("exchange", "routing_key")},
    }


def _arguments(given: object) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise TypeError
    known = {name: given[name] for name in ("with_defaults", "safe") if name in given}
    if "ids" in given:
        return {"ids": [_text(each) for each in given["ids"]]}
    return {name: bool(value) for name, value in known.items()}


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _envelope(command: dict[str, Any]) -> dict[str, Any]:
    return {
        "body": base64.b64encode(json.dumps(command).encode()).decode(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {},
        "properties": {
            "delivery_info": {"exchange": "celery.pidbox", "routing_key": ""},
            "body_encoding": "base64",
            "delivery_tag": "",
        },
    }
